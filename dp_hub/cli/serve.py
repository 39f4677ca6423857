"""``dp-hub serve``."""


def serve() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
