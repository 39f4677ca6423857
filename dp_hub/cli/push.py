"""``dp-hub push``."""


def push() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
