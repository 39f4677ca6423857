"""Errors meant for the user: what is wrong, where, what was seen, and what to do about it."""


class DpHubError(Exception):
    """Something the user can mend. ``dp-hub`` prints it without a traceback.

    Args:
        message: what is wrong, where, and what was seen, in one sentence.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class DataError(DpHubError):
    """A source or a dataset does not hold what it should."""


class ConfigError(DpHubError):
    """A configuration has an unknown key or an impossible value."""


class HubError(DpHubError):
    """The Hub refused, is away, or holds something else than was asked for."""


class PolicyError(DpHubError):
    """A policy folder, or the observations given to a policy, do not fit."""


class TrainingError(DpHubError):
    """Training broke down: numbers that are not finite, or no memory left."""


class RobotError(DpHubError):
    """A robot, a camera or another device is away, refuses, or does what it must not."""
