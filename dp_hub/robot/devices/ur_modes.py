"""What a UR controller's modes mean, in words (its RTDE guide's tables)."""

SAFETY = {
    1: "normal",
    2: "reduced",
    3: "protective stop",
    4: "recovery",
    5: "safeguard stop",
    6: "emergency stop of the system",
    7: "emergency stop of the robot",
    8: "violation of a safety limit",
    9: "fault of the safety system",
    10: "validating joints",
    11: "undefined",
    12: "automatic mode safeguard stop",
    13: "three-position enabling stop",
}
MOVES = (1, 2)
"""Safety modes in which the arm may move."""

ROBOT = {
    -1: "without a controller",
    0: "disconnected",
    1: "waiting for its safety settings to be confirmed",
    2: "booting",
    3: "powered off",
    4: "powered on, its brakes are not released",
    5: "idle, its brakes are not released",
    6: "being back-driven",
    7: "running",
    8: "updating its firmware",
}
RUNNING = 7

PROGRAM = {0: "stopping", 1: "stopped", 2: "playing", 3: "pausing", 4: "paused", 5: "resuming"}
PLAYING = (2, 5)
"""Runtime states in which the control program takes targets."""


def safety(mode: int) -> str:
    """Words for a safety mode."""
    return SAFETY.get(mode, f"safety mode {mode}")


def way_out(mode: int) -> str:
    """What a person does about a safety mode in which the arm must not move."""
    if mode in (6, 7):
        return "see why, release the emergency stop, power the arm on, and start again"
    if mode == 3:
        return "see what it met, unlock it on the pendant (not before 5 s are over), start again"
    return "see the pendant's log, clear it there, and start again"
