"""The live view: what the cameras see, a line that says what goes on, and keys."""
