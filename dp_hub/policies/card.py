"""The README.md of a saved policy: what it is, what it learned from, its numbers, how to use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import yaml

from dp_hub.config import Config
from dp_hub.policies.act import ActPolicy
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.kinds import Policy


@dataclass(frozen=True)
class Kind:
    """What a card says of a kind of policy."""

    title: str
    tag: str
    paper: str


KINDS = {
    "diffusion": Kind(
        "Diffusion policy",
        "diffusion-policy",
        "[Diffusion Policy](https://arxiv.org/abs/2303.04137)",
    ),
    "act": Kind(
        "ACT policy",
        "act",
        "[action chunking with transformers](https://arxiv.org/abs/2304.13705)",
    ),
}


class DatasetRecord(Config):
    """Which demonstrations a policy was trained on."""

    name: str
    """Hub name, or the folder's name for a local dataset."""
    fingerprint: str
    """Of the content; the same content has the same fingerprint everywhere."""
    commit: str | None = None
    """Commit on the Hub; None for a local folder."""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells beyond the policy's own configuration.

    Args:
        dataset: what it was trained on.
        numbers: measured facts by name, as they should read, e.g. ``{"training steps": "20,000"}``.
        license: an SPDX identifier as the Hub spells it (``mit``), or None.
        command: what trained it, or None.
        tags: further tags for the Hub, such as the task's name.
        trained_with: what code trained it.
        origin: for one that was converted: facts about where it came from, by name.
    """

    dataset: DatasetRecord | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    license: str | None = None
    command: str | None = None
    tags: Sequence[str] = ()
    trained_with: str = "dp_hub"
    origin: Mapping[str, str] = field(default_factory=dict)


def card_text(policy: Policy, facts: CardFacts) -> str:
    """The card, YAML front matter first."""
    kind = KINDS[policy.config.kind]
    header = yaml.safe_dump(_front_matter(kind, facts), sort_keys=False, allow_unicode=True)
    parts = [f"---\n{header}---\n", f"# {kind.title}\n", _summary(policy, facts)]
    if facts.origin:
        parts.append("## Where it comes from\n\n" + _table(("", ""), facts.origin))
    if facts.numbers:
        parts.append("## Numbers\n\n" + _table(("", ""), facts.numbers))
    if facts.command:
        parts.append(f"## How it was made\n\n```bash\n{facts.command}\n```\n")
    parts.append("## How to use it\n\n" + _usage(policy))
    return "\n".join(parts)


def _front_matter(kind: Kind, facts: CardFacts) -> dict[str, object]:
    matter: dict[str, object] = {"library_name": "dp_hub", "pipeline_tag": "robotics"}
    if facts.license:
        matter["license"] = facts.license
    matter["tags"] = ["robotics", kind.tag, *facts.tags]
    if facts.dataset and facts.dataset.commit:  # the Hub links only what it holds
        matter["datasets"] = [facts.dataset.name]
    return matter


def _summary(policy: Policy, facts: CardFacts) -> str:
    config = policy.config
    rows = {
        "observes": ", ".join(f"`{name}`" for name in config.observations),
        "observed steps": str(config.n_obs_steps),
        "predicts": f"`{config.action}`, {config.horizon} steps of {policy.action_dim} numbers",
        "executes": f"{config.n_action_steps} steps of them",
    } | (_of_act(policy) if isinstance(policy, ActPolicy) else _of_diffusion(policy))
    if facts.dataset:
        commit = f" at commit `{facts.dataset.commit}`" if facts.dataset.commit else ""
        rows["trained on"] = f"`{facts.dataset.name}`{commit}"
        rows["dataset fingerprint"] = f"`{facts.dataset.fingerprint}`"
    return (
        "A policy that turns the last observations of a robot into a chunk of actions "
        f"({KINDS[config.kind].paper}), trained with {facts.trained_with}.\n\n"
        + _table(("", ""), rows)
    )


def _of_diffusion(policy: DiffusionPolicy) -> dict[str, str]:
    config = policy.config
    return {
        "conditioning": config.conditioning,
        "network": f"`{config.denoiser.kind}`, {_n_weights(policy):,} parameters",
        "objective": f"{config.objective.kind}, sampled by {config.objective.solver} in "
        f"{config.objective.num_inference_steps} steps",
    }


def _of_act(policy: ActPolicy) -> dict[str, str]:
    config = policy.config
    return {
        "network": f"transformer {config.hidden_dim} wide, {_n_weights(policy):,} parameters",
        "objective": f"mean absolute error, and {config.kl_weight:g} times the divergence of a "
        f"style of {config.latent_dim} numbers",
    }


def _usage(policy: Policy) -> str:
    shapes = "".join(f'    "{name}": {_zeros(policy, name)},\n' for name in policy.encoder.names)
    return (
        "```python\nimport torch\nfrom dp_hub import load_policy\n\n"
        'policy = load_policy("user/name")  # this repository, or a folder\n'
        "observations = {  # raw units, (batch, steps, ...)\n"
        f"{shapes}}}\n"
        'actions = policy.predict_action(observations)["action"]\n```\n'
    )


def _zeros(policy: Policy, name: str) -> str:
    shape, steps = policy.features[name], policy.config.n_obs_steps
    if isinstance(shape, int):
        return f"torch.zeros(1, {steps}, {shape})"
    return f"torch.zeros(1, {steps}, {', '.join(map(str, shape))}, dtype=torch.uint8)"


def _table(header: tuple[str, str], rows: Mapping[str, str]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def _n_weights(policy: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in policy.parameters())
