"""What a robot's episodes leave: raw streams with times of their own, and synchronised datasets."""
