"""How well recorded episodes ended: what a person said, where the T lies, what a camera saw."""
