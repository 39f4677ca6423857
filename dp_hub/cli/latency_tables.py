"""What ``dp-hub latency`` prints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from dp_hub.robot.config import RobotConfig
    from dp_hub.robot.latency.choosing import Chosen
    from dp_hub.robot.latency.finding import Findings
    from dp_hub.robot.latency.signals import Delay, Spread

DEAD_OR_LAG = (
    "Action latency: the dead time suits policies whose training data has commands as actions, for "
    "those data hold the arm's lag already; where actions are positions that the arm reached, take "
    "all of the lag: --action lag."
)


def as_json(found: "Findings", config: "RobotConfig", chosen: "Chosen") -> dict[str, Any]:
    """Everything, as plain values."""
    values = [
        {"key": ".".join(key), "now": now(config, key), "measured": value}
        for key, value in chosen.values.items()
    ]
    return {**found.as_json(), "latencies": values, "notes": chosen.notes}


def print_tables(found: "Findings", config: "RobotConfig", chosen: "Chosen") -> None:
    """On stdout."""
    from rich.console import Console

    console = Console()
    console.print(_streams(found))
    for name in found.streams:
        if counted := _counted(found.counts.get(name, {})):
            console.print(f"counted of {name}: {counted}", highlight=False)
    if found.actuator is not None or found.inference is not None:
        console.print(_delays(found))
    if chosen.values:
        console.print(_config(config, chosen))
    for note in chosen.notes:
        console.print(f"note: {note}", highlight=False)
    if found.dead_time is not None:
        console.print(DEAD_OR_LAG, highlight=False)


def _streams(found: "Findings") -> "Table":
    from rich.table import Table

    table = Table(
        "stream", "Hz", "of", "jitter ms", "longest ms", "there after ms", "lost",
        title=f"{found.robot}: how streams come",
    )  # fmt: skip
    for name, one in found.streams.items():
        table.add_row(
            name,
            f"{one.rate_hz:.1f}",
            f"{one.wanted_hz:g}",
            _ms(one.jitter_s),
            _ms(one.longest_s),
            _both(one.transport),
            str(one.lost),
        )
    return table


def _counted(counts: dict[str, float]) -> str:
    """What went wrong, if anything."""
    bad = ["restamped", "waits", "missed", "late_points", "clipped_box", "refused"]
    bad += ["limited_speed", "limited_acceleration", "limited_step"]
    return ", ".join(f"{name} {counts[name]:g}" for name in bad if counts.get(name))


def _delays(found: "Findings") -> "Table":
    from rich.table import Table

    where = "" if found.actuator is None else f", {found.actuator} moving along {found.moved}"
    table = Table("from", "to", "ms (95 %)", "", title=f"{found.robot}: latencies{where}")
    for row in _of_movement(found):
        table.add_row(*row)
    for told in _of_inference(found):
        table.add_row(*told)
    return table


def _of_movement(found: "Findings") -> "Iterator[tuple[str, str, str, str]]":
    if found.actuator is None:
        return
    name, dead = found.actuator, found.dead_time
    if dead is not None:
        moves = "" if dead.spread is None else f"{dead.spread.n} of {dead.moves} moves"
        yield "target sent", f"{name} begins to move", _both(dead.spread), dead.why_not or moves
    if found.lag is not None:
        yield "target sent", f"{name} follows", *_delay(found.lag)
    for camera, delay in (found.cameras or {}).items():
        yield f"position of {name}", f"picture of {camera}", *_delay(delay)


def _delay(delay: "Delay") -> tuple[str, str]:
    if delay.delay_s is None:
        return "-", delay.why_not or ""
    return _ms(delay.delay_s), f"correlation {delay.correlation:.2f}"


def _of_inference(found: "Findings") -> "Iterator[tuple[str, str, str, str]]":
    asked = found.inference
    if asked is None:
        return
    n = f"{asked.answers.n} answers"
    yield "policy asked", "answer", _both(asked.answers), f"{n}; the first {_ms(asked.first_s)}"
    yield "", "", _both(asked.compute), "of it the policy's own"
    yield "observation", "answer", _both(asked.observed), n


def _config(config: "RobotConfig", chosen: "Chosen") -> "Table":
    from rich.table import Table

    table = Table("key", "now", "measured", title="what the configuration should say, s")
    for key, value in chosen.values.items():
        table.add_row(".".join(key), f"{now(config, key):g}", f"{value:.4f}")
    return table


def now(config: "RobotConfig", key: tuple[str, ...]) -> float:
    """What the configuration says."""
    node: Any = config
    for name in key:
        node = node[name] if isinstance(node, dict) else getattr(node, name)
    return float(node)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _both(spread: "Spread | None") -> str:
    """Median and 95 %."""
    return "-" if spread is None else f"{_ms(spread.median_s)} ({_ms(spread.p95_s)})"
