"""``dp-hub pull``."""


def pull() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
