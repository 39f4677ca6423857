"""From what was measured to the latencies of a configuration. Pure.

A robot alone cannot tell when a reading was true: only how much later the arm's movement is in its
readings than the target was sent (action and state latency together), and how much later it is in
pictures than in readings (camera minus state latency). One number is free: the state latency. It
does not matter which it is. If it is taken d too small, observations count as d newer than they
are, and the action latency comes out d too long, so that actions are sent d earlier: the arm does
the same thing at the same time. So it stays what it is in the configuration, and the others are
right for it.
"""

from dataclasses import dataclass, field
from typing import Literal

from dp_hub.robot.config import RobotConfig
from dp_hub.robot.latency.finding import Findings

Key = tuple[str, ...]
"""Of a number in a configuration: ``("arms", "arm", "action_latency_s")``."""
Follows = Literal["dead", "lag"]
"""What the action latency is: the dead time, or all of the lag."""
AS_EARLY_S = 0.005
"""What is earlier than it can be by less is an error of measuring."""


@dataclass(frozen=True)
class Chosen:
    """What a configuration should say.

    Args:
        values: seconds by key, rounded to a tenth of a millisecond.
        notes: what people should know about them.
    """

    values: dict[Key, float]
    notes: list[str] = field(default_factory=list)


def choose(
    found: Findings,
    config: RobotConfig,
    *,
    state_latency_s: float | None = None,
    follows: Follows = "dead",
) -> Chosen:
    """The latencies that follow from what was measured; those that did not come out are left out.

    Args:
        found: on this robot.
        config: of it.
        state_latency_s: of the arm that moved, if it is known from elsewhere; None: as configured.
        follows: which number becomes the action latency.
    """
    values: dict[Key, float] = {}
    notes: list[str] = []
    if found.actuator is not None:
        values |= _of_movement(found, config, state_latency_s, follows, notes)
    if found.inference is not None:
        values["inference", "latency_s"] = _of_inference(found, config, values, notes)
    return Chosen({key: round(value, 4) for key, value in values.items()}, notes)


def _of_movement(
    found: Findings,
    config: RobotConfig,
    known_s: float | None,
    follows: Follows,
    notes: list[str],
) -> dict[Key, float]:
    name = found.actuator or ""
    group = "arms" if name in config.arms else "grippers"
    before_s = config.actuators[name].state_latency_s
    after = {
        camera: one.delay_s
        for camera, one in (found.cameras or {}).items()
        if one.delay_s is not None
    }
    state_s = before_s if known_s is None else known_s
    earliest_s = state_s + min(after.values(), default=0.0)
    if earliest_s < -AS_EARLY_S:
        state_s -= earliest_s
        notes.append(
            f"pictures are earlier than the positions of {name}: its state latency is at least "
            f"{state_s:.3f} s"
        )
    values: dict[Key, float] = {}
    if state_s != before_s:
        values[group, name, "state_latency_s"] = state_s
    for camera, later_s in after.items():
        values["cameras", camera, "latency_s"] = max(0.0, state_s + later_s)
    trip_s = _trip(found, follows)
    if trip_s is not None:
        values[group, name, "action_latency_s"] = max(0.0, trip_s - state_s)
        if trip_s < state_s - AS_EARLY_S:
            notes.append(f"{name} moves {trip_s:.3f} s after a target: less than its state latency")
    return values


def _trip(found: Findings, follows: Follows) -> float | None:
    """From a target to its being seen in the position."""
    if follows == "lag":
        return found.lag.delay_s if found.lag else None
    spread = found.dead_time.spread if found.dead_time else None
    return spread.median_s if spread else None


def _of_inference(
    found: Findings, config: RobotConfig, values: dict[Key, float], notes: list[str]
) -> float:
    """With the new latencies an observation is as much older as they are greater, at most."""
    assert found.inference is not None
    older = [0.0]
    for (group, name, key), value in values.items():
        if key != "action_latency_s":
            older.append(value - getattr(getattr(config, group)[name], key))
    if max(older) > 0:
        notes.append(f"the inference latency counts {max(older):.3f} s of new sensor latency in")
    return found.inference.observed.p95_s + max(older)
