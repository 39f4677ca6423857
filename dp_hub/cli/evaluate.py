"""``dp-hub evaluate``."""


def evaluate() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
