"""The server's first message: which protocol it speaks, and which policy it has."""

from typing import Any

from dp_hub.errors import RobotError
from dp_hub.robot.inference import wire
from dp_hub.robot.inference.info import PolicyInfo

POLICY = {
    "name", "sha", "kind", "n_obs_steps", "n_action_steps", "horizon", "period_s", "observations",
    "action", "features",
}  # fmt: skip
MOST_STEPS, MOST_FEATURES, MOST_SIZE = 10_000, 64, 1_000_000


def pack_hello(info: PolicyInfo) -> bytes:
    """The first message of a connection."""
    policy = {name: getattr(info, name) for name in POLICY}
    policy["observations"] = list(info.observations)
    policy["features"] = {name: list(shape) for name, shape in info.features.items()}
    return wire.pack({"kind": "hello", "version": wire.VERSION, "policy": policy})


def unpack_hello(data: bytes | str) -> PolicyInfo:
    """What a server has. Raises RobotError: it speaks another protocol, or nonsense."""
    message = wire.unpack(data)
    if wire.kind_of(message) != "hello":
        raise wire.Malformed(f"a server says {message['kind']!r} first, expected `hello`")
    version = wire.whole(message.get("version"), "version of the protocol")
    if version != wire.VERSION:
        raise RobotError(
            f"the server speaks version {version} of the protocol, this client {wire.VERSION}",
            hint="install the same version of dp_hub on both machines",
        )
    policy = wire.keys(message, wire.HELLO, "a hello")["policy"]
    return _info(wire.keys(policy, POLICY, "a hello's policy"))


def _info(policy: dict[str, Any]) -> PolicyInfo:
    observations, features = policy["observations"], policy["features"]
    if not isinstance(observations, list) or not 1 <= len(observations) <= MOST_FEATURES:
        raise wire.Malformed("a hello's observations are no short list")
    if not isinstance(features, dict) or not 1 <= len(features) <= MOST_FEATURES:
        raise wire.Malformed("a hello's features are no short map")
    period_s, sha = policy["period_s"], policy["sha"]
    steps = {
        name: wire.whole(policy[name], name, low=1, high=MOST_STEPS)
        for name in ("n_obs_steps", "n_action_steps", "horizon")
    }
    info = PolicyInfo(
        name=wire.text(policy["name"], "name of a policy"),
        sha=None if sha is None else wire.text(sha, "sha of a policy"),
        kind=wire.text(policy["kind"], "kind of a policy"),
        period_s=None if period_s is None else wire.number(period_s, "period_s"),
        observations=tuple(wire.text(one, "an observation") for one in observations),
        action=wire.text(policy["action"], "action of a policy"),
        features={
            wire.text(name, "a feature"): _shape(name, shape) for name, shape in features.items()
        },
        **steps,
    )
    missing = {*info.observed, info.action} - info.features.keys()
    if missing or len(info.features[info.action]) != 1:
        raise wire.Malformed("a hello's features do not hold what its policy observes and predicts")
    return info


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or len(shape) not in (1, 3):
        raise wire.Malformed(f"feature {name} has an impossible shape")
    return tuple(wire.whole(size, f"shape of {name}", low=1, high=MOST_SIZE) for size in shape)
