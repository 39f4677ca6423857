"""Devices by name, found through entry points; a package of anyone's adds its own.

An entry is a class whose constructor takes keyword options, each annotated, and touches no
hardware; docs/robots.md shows a whole one. A device of a simulated world has one keyword more,
``ports``, which is no option: the runtime fills it in with what the world's process offers.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from dp_hub.dataset.conversion.format_list import described, install_line
from dp_hub.errors import ConfigError, RobotError
from dp_hub.options import check_options, takes

if TYPE_CHECKING:
    from dp_hub.robot.worlds.ports import Ports

ARMS, GRIPPERS = "dp_hub.arms", "dp_hub.grippers"
CAMERAS, TELEOPS, WORLDS = "dp_hub.cameras", "dp_hub.teleops", "dp_hub.worlds"
GROUPS = {ARMS: "arm", GRIPPERS: "gripper", CAMERAS: "camera", TELEOPS: "teleop", WORLDS: "world"}
"""Every entry-point group, and what one of its entries is."""

_GIVEN = ("ports",)
"""Arguments that the runtime fills in."""


@dataclass(frozen=True)
class About:
    """What is known of a device without importing it.

    Args:
        name: what a robot's configuration calls it.
        summary: of its class, "" if it has none.
        options: ``name=values`` each, as far as the class's source text shows them.
        install: what pip installs for it, such as ``dp_hub[ur]``; None if nothing more is needed.
        package: that it comes from.
    """

    name: str
    summary: str
    options: tuple[str, ...]
    install: str | None
    package: str


@dataclass(frozen=True)
class DeviceCall:
    """A device that is still to be made, in whichever process will use it; it can be pickled.

    Args:
        group: of its entry point, one of `GROUPS`.
        name: in the group.
        options: of its constructor. `device_call` checks them; here they are taken as they are.
    """

    group: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_simulated(self) -> bool:
        """Whether it belongs to a simulated world. Raises as `load_device`."""
        return takes(load_device(self.group, self.name), "ports")

    def make(self, ports: "Ports | None" = None) -> Any:
        """The device, not open yet.

        Args:
            ports: of the world's process; only a device of a simulated world needs them.
        Raises:
            ConfigError: there is no such device, or an option does not suit it.
            RobotError: its library is missing, or there is no world for it.
        """
        kind = load_device(self.group, self.name)
        if not takes(kind, "ports"):
            return kind(**self.options)
        if ports is None:
            raise RobotError(
                f"the {GROUPS[self.group]} {self.name!r} belongs to a simulated world, and there "
                "is none",
                hint="name a `world` in the robot's configuration",
            )
        return kind(ports=ports, **self.options)


def device_call(
    group: str, name: str, options: Mapping[str, Any] | None = None, *, where: str = ""
) -> DeviceCall:
    """A call whose name and options are checked; no hardware or hardware's library is touched.

    Args:
        group: one of `GROUPS`.
        name: of a device.
        options: of its constructor; texts are read as its annotations say.
        where: the options were written, for messages.
    Raises:
        ConfigError: no such device, no such option, or a value that does not fit.
        RobotError: the device's module needs a library that is not installed.
    """
    kind = load_device(group, name)
    of = f"the {GROUPS[group]} {name!r}" + (f" in {where}" if where else "")
    fitted = check_options(kind, options or {}, of=of, error=ConfigError, but=_GIVEN)
    if group != WORLDS and not takes(kind, "ports"):
        kind(**fitted)  # it knows which values go together; making it touches nothing
    return DeviceCall(group, name, fitted)


def known(group: str) -> dict[str, About]:
    """What is installed in a group by name, read from source texts: imports none of it."""
    points = {point.name: point for point in entry_points(group=group)}
    return {name: _about(points[name]) for name in sorted(points)}


def load_device(group: str, name: str) -> type[Any]:
    """A device's class.

    Raises:
        ConfigError: there is none of that name, or two packages have one.
        RobotError: it cannot be imported.
    """
    point = _entry_point(group, name)
    what = f"the {GROUPS[group]} {name!r} ({point.value})"
    try:
        kind: type[Any] = point.load()
    except (ImportError, AttributeError) as error:
        install = install_line(point)
        ours = {"dp_hub", point.module.partition(".")[0]}
        lost = (getattr(error, "name", None) or "").partition(".")[0]
        if install is None or not isinstance(error, ModuleNotFoundError) or lost in ours:
            raise RobotError(
                f"{what} cannot be loaded: {error}",
                hint="is its package installed whole, and of the version it was made for?",
            ) from error
        raise RobotError(
            f"{what} needs a library that is not installed: {error}",
            hint=f'pip install "{install}"',
        ) from error
    return kind


def _entry_point(group: str, name: str) -> EntryPoint:
    assert group in GROUPS, group
    points = list(entry_points(group=group))
    found = {(_package(p), p.value): p for p in points if p.name == name}
    if len(found) > 1:
        packages = " and ".join(sorted(f"{_package(p)} ({p.value})" for p in found.values()))
        raise ConfigError(
            f"there are {len(found)} {GROUPS[group]}s called {name!r}: in {packages}",
            hint="uninstall all but one of these packages",
        )
    if found:
        [point] = found.values()
        return point
    names = sorted({point.name for point in points})
    near = difflib.get_close_matches(name, names, n=1)
    have = f"installed {GROUPS[group]}s: {', '.join(names) or 'none'}"
    raise ConfigError(
        f"there is no {GROUPS[group]} called {name!r}",
        hint=f"did you mean `{near[0]}`? {have}" if near else have,
    )


def _about(point: EntryPoint) -> About:
    seen = described(point)
    options = tuple(one for one in seen.options if one.partition("=")[0] not in _GIVEN)
    return About(seen.name, seen.summary, options, seen.install, _package(point))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module.partition(".")[0]
