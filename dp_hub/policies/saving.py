"""A policy as a folder: config.json, model.safetensors, README.md, train_config.yaml.

Nothing in it is executed when it is loaded, and loading is strict: an unknown key in the
configuration, or a missing, extra or misshapen weight, is an error that names it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from dp_hub import __version__
from dp_hub.config import Config, build, read_json
from dp_hub.errors import ConfigError, PolicyError
from dp_hub.files import new_folder
from dp_hub.models.empty import without_weights
from dp_hub.policies.act_config import ActConfig
from dp_hub.policies.card import CardFacts, DatasetRecord, card_text
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.kinds import Policy, PolicyConfig, make_policy, required_features
from dp_hub.policies.selection import Shape

CONFIG, WEIGHTS, CARD, TRAINING = (
    "config.json",
    "model.safetensors",
    "README.md",
    "train_config.yaml",
)
FORMAT = 1

Precision = Literal["no", "bf16"]
"""Of the denoiser when it is loaded; training's word for it."""


class PolicyRecord(Config):
    """What a policy folder's config.json holds."""

    format: int
    """Version of this layout."""
    dp_hub_version: str
    """That wrote it."""
    policy: PolicyConfig
    """What to build."""
    features: dict[str, Shape]
    """Of every feature read or predicted: a width, or [height, width, channels] of pictures."""
    dataset: DatasetRecord | None = None
    """What it was trained on."""


def save_policy(
    policy: Policy,
    folder: str | Path,
    *,
    card: CardFacts | None = None,
    train_config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a policy folder, whole or not at all.

    Args:
        policy: with the weights to save (after training, the averaged ones).
        folder: where; an older policy there is replaced, anything else is refused.
        card: facts for README.md and config.json.
        train_config: the whole training configuration as plain values.
    Raises:
        PolicyError: ``folder`` holds something that is not a policy.
    """
    folder, facts = Path(folder), card or CardFacts()
    if folder.exists() and not (_is_policy(folder) or _is_empty(folder)):
        raise PolicyError(
            f"{folder} holds something else than a policy", hint="save to another folder"
        )
    record = PolicyRecord(
        format=FORMAT,
        dp_hub_version=__version__,
        policy=policy.config,
        features=policy.features,
        dataset=facts.dataset,
    )
    weights = {
        name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()
    }
    with new_folder(folder) as draft:
        text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False)
        (draft / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_file(weights, draft / WEIGHTS, metadata={"format": "pt"})
        (draft / CARD).write_text(card_text(policy, facts), encoding="utf-8")
        if train_config is not None:
            text = yaml.safe_dump(dict(train_config), sort_keys=False, allow_unicode=True)
            (draft / TRAINING).write_text(text, encoding="utf-8")
    return folder


def load_policy(
    path_or_repo: str | Path,
    *,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    scheduler: str | None = None,
    num_inference_steps: int | None = None,
    precision: Precision = "no",
) -> Policy:
    """A policy from a folder or from the Hub, ready to predict (``eval()``).

    Args:
        path_or_repo: a policy folder, or else a Hub name ``user/name[@revision]``.
        device: where its weights go.
        revision: branch, tag or commit on the Hub.
        scheduler: another solver than the saved one: ddpm, ddim or dpmsolver++ for a policy
            trained by diffusion, euler for flow matching; none for ACT.
        num_inference_steps: network calls per prediction, instead of the saved number.
        precision: ``bf16`` rounds the denoiser's matrices and its arithmetic: half the memory to
            read at every step, and faster where the machine knows bf16. Not for ACT.
    Raises:
        PolicyError: no such folder, or its configuration or weights do not fit exactly.
        HubError: the Hub refused or cannot be reached.
    """
    folder = _locate(path_or_repo, revision)
    record = read_record(folder)
    config = _with_sampling(record.policy, scheduler, num_inference_steps)
    with without_weights():
        policy = make_policy(config, record.features)
    _check_weights(policy, folder / WEIGHTS)
    policy.load_state_dict(load_file(folder / WEIGHTS, device=str(device)), assign=True)
    if precision == "bf16":
        _round_denoiser(policy)
    return policy.to(device).eval()


def _round_denoiser(policy: Policy) -> None:
    if not isinstance(policy, DiffusionPolicy):
        raise PolicyError(
            f"precision bf16 is for diffusion policies, not for {policy.config.kind}",
            hint="load it without precision",
        )
    for parameter in cast(nn.Module, policy.denoiser).parameters():
        if parameter.dim() > 1:  # biases and norms are little to read, and keep their digits
            parameter.data = parameter.data.to(torch.bfloat16)


def read_record(folder: Path) -> PolicyRecord:
    """A policy folder's config.json, checked. Raises PolicyError."""
    path = folder / CONFIG
    try:
        values = read_json(path)
        found = values.get("format")
        if isinstance(found, int) and found > FORMAT:
            raise PolicyError(
                f"{path} has format {found}, newer than this dp_hub knows ({FORMAT})",
                hint="upgrade dp_hub",
            )
        record = build(PolicyRecord, values, where=str(path))
    except ConfigError as error:
        raise PolicyError(error.message, hint=error.hint) from None
    needed = set(required_features(record.policy))
    if needed != set(record.features):
        raise PolicyError(
            f"`features` in {path} has {', '.join(sorted(record.features))}, "
            f"but the policy needs exactly {', '.join(sorted(needed))}"
        )
    return record


def _locate(path_or_repo: str | Path, revision: str | None) -> Path:
    folder = Path(path_or_repo)
    if folder.is_dir():
        if not (folder / CONFIG).is_file():
            raise PolicyError(
                f"{folder} is not a policy folder: it has no {CONFIG}",
                hint="a training run's policy is in its sub-folder `policy`",
            )
        return folder
    from dp_hub.hub import is_hub_name, pull
    from dp_hub.hub.client import no_folder

    if folder.exists() or not is_hub_name(str(path_or_repo)):
        raise PolicyError(
            f"no policy folder at {path_or_repo}",
            hint="give a folder with config.json and model.safetensors, or a Hub name user/name",
        )
    with no_folder(str(path_or_repo)):
        return pull(str(path_or_repo), revision=revision, kind="policy").path


def _with_sampling(config: PolicyConfig, scheduler: str | None, steps: int | None) -> PolicyConfig:
    if scheduler is None and steps is None:
        return config
    if isinstance(config, ActConfig):
        raise PolicyError(
            "an ACT policy predicts a chunk at once: it has no solver and no steps to choose",
            hint="leave them out",
        )
    values = config.model_dump()
    if scheduler is not None:
        values["objective"]["solver"] = scheduler
    if steps is not None:
        values["objective"]["num_inference_steps"] = steps
    try:
        return build(DiffusionConfig, values, where="the arguments of load_policy")
    except ConfigError as error:
        kind = config.objective.kind
        raise PolicyError(
            f"cannot sample a {kind} policy that way: {error.message}", hint=error.hint
        ) from None


def _check_weights(policy: Policy, path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise PolicyError(f"no weights at {path}") from None
    except SafetensorError as error:
        raise PolicyError(f"{path} is not a whole safetensors file: {error}") from None
    expected = {name: tuple(value.shape) for name, value in policy.state_dict().items()}
    _refuse("lacks", sorted(expected.keys() - found.keys()), path)
    _refuse("has unknown", sorted(found.keys() - expected.keys()), path)
    for name, shape in expected.items():
        if found[name] != shape:
            raise PolicyError(
                f"{path} has weight {name} of shape {found[name]}, but {CONFIG} makes it {shape}"
            )


def _refuse(verb: str, names: list[str], path: Path) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise PolicyError(
            f"{path} {verb} weights: {', '.join(names[:3])}{more}",
            hint=f"{CONFIG} and {WEIGHTS} must come from the same policy",
        )


def _is_policy(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())
