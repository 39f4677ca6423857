"""``dp-hub convert``."""


def convert() -> None:
    """Placeholder until the command lands."""
    raise NotImplementedError
