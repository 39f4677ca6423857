"""``dp-hub export``."""


def export() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
