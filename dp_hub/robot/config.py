"""A robot as a file: its devices, their limits and latencies, and what a policy sees and moves.

The file is YAML and strict; what it means is in docs/robots.md.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from dp_hub.config import Config, build, read_yaml
from dp_hub.errors import ConfigError
from dp_hub.robot.acting.rules import Rules
from dp_hub.robot.motion.limits import Limits
from dp_hub.robot.motion.trajectory import Interpolation

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=16384)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
"""Of a device: it becomes part of the names of streams."""
_RESERVED = ("session", "world")  # names of cells and of a process
_RECORDED = ("action", "intervention", "stage")  # features that recording adds


class DeviceConfig(Config):
    """Which driver, and what it is told."""

    device: str = Field(min_length=1)
    """Its name; docs/robots.md has a table, and a wrong one is answered by those there are."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the driver."""


class ActuatorConfig(DeviceConfig):
    """An arm or a gripper, with a controller process of its own."""

    rate_hz: Annotated[float, Field(ge=1, le=1000)] = 125.0
    """Ticks of the controller."""
    interpolation: Interpolation = "linear"
    """Between actions: ``linear`` moves from one to the next, ``hold`` steps."""
    limits: Limits = Limits()
    """What it never exceeds, whoever asks."""
    state_latency_s: NotNegative = 0.0
    """From when a reading was true to its time."""
    action_latency_s: NotNegative = 0.0
    """From a target being sent to it being followed."""
    max_age_s: Positive = 0.5
    """A reading older than that is none."""
    interpolate: bool = False
    """Observe readings interpolated at the observed steps; else the nearest in time."""


class CameraConfig(DeviceConfig):
    """A camera, with a process of its own."""

    rate_hz: Annotated[float, Field(gt=0, le=1000)] = 30.0
    """Frames it gives."""
    latency_s: NotNegative = 0.0
    """From light to the time of its frames."""
    max_age_s: Positive = 0.5
    """A frame older than that is none."""


class TeleopConfig(DeviceConfig):
    """A device in a hand, and what moves with it."""

    moves: str | None = None
    """The actuator; by default the first of `action`."""
    gripper: str | None = None
    """The gripper its buttons open and close."""
    rate_hz: Annotated[float, Field(ge=1, le=500)] = 50.0
    """How often it is read."""
    speed: Positive | None = None
    """Full deflection, in the actuator's units per second; by default half its limit."""
    rotation_speed: Positive | None = None
    """Full deflection about an axis, rad/s; by default half its limit."""
    gripper_speed: Positive = 0.05
    """Full deflection, m/s."""


class PictureFeature(Config):
    """A feature that is a camera's picture, changed as its mapping would."""

    camera: str
    rotate: Literal[0, 90, 180, 270] = 0
    flip: Literal["vertical", "horizontal"] | None = None
    crop: tuple[int, int, Pixels, Pixels] | None = None
    resize: tuple[Pixels, Pixels] | None = None


class InferenceConfig(Rules):
    """How chunks of actions become motion in time."""

    n_action_steps: PositiveInt | None = None
    """Actions of a chunk before the policy is asked again; None: as it was trained."""
    latency_s: NotNegative = 0.0
    """From an observation to its chunk, as `dp-hub latency` measured it: the first guess."""
    ahead: Annotated[int, Field(ge=0)] | Literal["auto"] = 0
    """Steps that the policy is asked earlier; ``auto``: so many that answers are in time."""
    chunking: Literal["guidance", "inpaint"] | None = None
    """Real-time chunking: the next chunk continues the one that is being carried out."""
    give_up_s: Positive = 5.0
    """A policy that has not answered by then has failed: the robot holds, the episode ends."""


class RobotConfig(Config):
    """All of a robot. See the module."""

    robot_type: str = Field(min_length=1)
    """For datasets and policies."""
    fps: Annotated[float, Field(gt=0, le=200)]
    """Of actions, observations and recorded frames."""
    world: DeviceConfig | None = None
    """The simulated world its devices belong to; none for a real robot."""
    arms: dict[Name, ActuatorConfig] = Field(default_factory=dict)
    grippers: dict[Name, ActuatorConfig] = Field(default_factory=dict)
    cameras: dict[Name, CameraConfig] = Field(default_factory=dict)
    observations: dict[str, list[str] | PictureFeature] = Field(min_length=1)
    """Features: streams ``arm.position`` whose numbers are joined, or a camera's picture."""
    action: list[str] = Field(min_length=1)
    """Whose targets the action's numbers are, in order."""
    teleop: TeleopConfig | None = None
    inference: InferenceConfig = InferenceConfig()
    hold_after_s: Positive = 0.5
    """Controllers hold when nothing was heard for so long."""
    history_s: Positive = 2.0
    """How far back streams can be looked at."""
    episode_s: Positive = 60.0
    """The longest episode."""
    task: str | None = None
    """What is to be done, in words; stored with recorded episodes."""

    @field_validator("observations", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: [v] if isinstance(v, str) else v for k, v in value.items()}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        _check_devices([*self.arms, *self.grippers, *self.cameras])
        for name in self.action:
            _check_name(name, self.actuators, "action")
            if self.action.count(name) > 1:
                raise ValueError(f"action: {name} stands there twice")
        for feature, made_of in self.observations.items():
            if feature in _RECORDED:
                raise ValueError(f"observations: {feature!r} is the name of what is recorded of it")
            if isinstance(made_of, PictureFeature):
                _check_name(made_of.camera, self.cameras, f"observations.{feature}")
            else:
                for term in made_of:
                    _check_name(term.partition(".")[0], self.actuators, f"observations.{feature}")
        if self.teleop and self.teleop.moves:
            _check_name(self.teleop.moves, self.actuators, "teleop.moves")
        if self.teleop and self.teleop.gripper:
            _check_name(self.teleop.gripper, self.grippers, "teleop.gripper")
        return self

    @property
    def actuators(self) -> dict[str, ActuatorConfig]:
        """Arms and grippers."""
        return {**self.arms, **self.grippers}

    @property
    def period_s(self) -> float:
        """Of an action."""
        return 1.0 / self.fps

    @property
    def is_simulated(self) -> bool:
        """Nothing of it can hit anybody."""
        return self.world is not None

    def digest(self) -> str:
        """Of its content: what recorded episodes remember of the robot."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_devices(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two devices are called {name}")
        if name in _RESERVED or name.endswith("_sent"):
            raise ValueError(f"a device cannot be called {name}: the name is taken")


def _check_name(name: str, known: Mapping[str, Any], where: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    have = f"did you mean {near[0]}? " if near else ""
    raise ValueError(
        f"{where}: no device of that kind is called {name!r}; {have}there is "
        f"{', '.join(known) or 'none'}"
    )


def load_robot(path: Path | str) -> RobotConfig:
    """A robot's configuration from its file, or one that comes with dp_hub by its name.

    Raises:
        ConfigError: it is missing or does not fit.
    """
    file = find_robot(path)
    if not file.is_file() and file.suffix == "":
        near = difflib.get_close_matches(str(path), bundled_robots(), n=1)
        raise ConfigError(
            f"there is no robot {str(path)!r}",
            hint=(f"did you mean `{near[0]}`? " if near else "")
            + f"name a YAML file, or one that comes with dp_hub: {', '.join(bundled_robots())}",
        )
    return build(RobotConfig, read_yaml(file), where=str(file))


def find_robot(path: Path | str) -> Path:
    """The file of a robot: a path, or the name of one in `dp_hub/robot/configs`."""
    file = Path(path)
    bundled = Path(__file__).parent / "configs" / f"{path}.yaml"
    return bundled if not file.is_file() and str(path) in bundled_robots() else file


def bundled_robots() -> list[str]:
    """Names that `load_robot` knows."""
    return sorted(path.stem for path in (Path(__file__).parent / "configs").glob("*.yaml"))
