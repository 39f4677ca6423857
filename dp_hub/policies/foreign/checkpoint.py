"""The original's ``.ckpt`` files to dp_hub policies. Nothing in the file is executed."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.errors import PolicyError
from dp_hub.policies.card import CardFacts
from dp_hub.policies.diffusion import DiffusionPolicy
from dp_hub.policies.foreign.loading import check_new, policy_with
from dp_hub.policies.foreign.names import TensorRef
from dp_hub.policies.foreign.original_config import Plan, plan_of
from dp_hub.policies.foreign.original_weights import Weights, picture_scale, policy_weights
from dp_hub.policies.foreign.pickles import read_pickle
from dp_hub.policies.foreign.pixels import pixel_normalization
from dp_hub.policies.foreign.settings import plain_settings
from dp_hub.policies.foreign.torch_file import TorchFile, open_torch_file
from dp_hub.policies.saving import save_policy


@dataclass(frozen=True)
class Converted:
    """A policy that came from elsewhere.

    Args:
        path: its folder.
        policy: what is in it.
        origin: facts about where it came from, by name, for people.
        notes: what is different here, in sentences.
    """

    path: Path
    policy: DiffusionPolicy
    origin: Mapping[str, str]
    notes: Sequence[str]


def convert_checkpoint(
    source: Path, to: Path, *, names: Mapping[str, str] | None = None
) -> Converted:
    """Make a policy folder of a checkpoint that the original Diffusion Policy wrote.

    Args:
        source: the ``.ckpt`` file.
        to: the folder to make; it must not be there, or be empty.
        names: feature for a key of the original's observations, where the usual one is not wanted.
    Raises:
        PolicyError: something in the file is not plain, damaged, or has no counterpart here; it is
            named, and nothing is written.
    """
    check_new(to)
    with open_torch_file(source) as file:
        payload = _Payload(file, source)
        policy, plan = payload.policy(names or {})
    origin = {
        "converted from": f"`{source.name}`, a checkpoint of the original Diffusion Policy",
        "sha256 of that file": f"`{sha256_of(source)}`",
        "its weights": payload.which_weights,
    } | payload.counters()
    told = origin | ({"notes": "; ".join(plan.notes)} if plan.notes else {})
    code = "the code of the paper and converted by dp_hub"
    save_policy(policy, to, card=CardFacts(trained_with=code, origin=told))
    return Converted(to, policy, origin, plan.notes)


class _Payload:
    """``{cfg, state_dicts, pickles}``, as the original's workspaces write it."""

    def __init__(self, file: TorchFile, path: Path) -> None:
        self._file, self._where = file, str(path)
        payload = file.payload
        if not isinstance(payload, dict) or not {"cfg", "state_dicts"} <= set(payload):
            raise PolicyError(
                f"{path} is a file of torch's, but not a checkpoint of the original Diffusion "
                "Policy: it has no `cfg` and `state_dicts`"
            )
        self._payload = payload
        self._cfg = plain_settings(payload["cfg"], where=self._where)
        self._key = self._model_key()

    @property
    def which_weights(self) -> str:
        """For people."""
        return "the averaged ones (EMA)" if self._key == "ema_model" else "those trained (no EMA)"

    def policy(self, wanted: Mapping[str, str]) -> tuple[DiffusionPolicy, Plan]:
        """The policy, and how it came about. Raises PolicyError."""
        refs = self._payload["state_dicts"][self._key]
        weights = Weights(refs, self._file.tensor, f"`{self._key}` in {self._where}")

        def pixels(keys: Sequence[str]) -> Any:
            return pixel_normalization([picture_scale(weights, key) for key in keys])

        plan = plan_of(self._cfg, where=self._where, wanted=wanted, pixels=pixels)
        state = policy_weights(weights, plan)
        return policy_with(plan.config, plan.features, state, self._where), plan

    def counters(self) -> dict[str, str]:
        """How long it was trained. They lie in pickles of their own, read as warily."""
        pickles = self._payload.get("pickles")
        result = {}
        for key, label in {"global_step": "training steps", "epoch": "epochs"}.items():
            data = pickles.get(key) if isinstance(pickles, dict) else None
            if isinstance(data, bytes):
                value = read_pickle(io.BytesIO(data), where=f"`{key}` in {self._where}")
                if type(value) is int:
                    result[label] = f"{value:,}"
        return result

    def _model_key(self) -> str:
        models = self._payload["state_dicts"]
        models = models if isinstance(models, dict) else {}
        training = self._cfg.get("training") if isinstance(self._cfg, dict) else None
        averaged = training.get("use_ema") if isinstance(training, dict) else None
        if averaged is None:
            averaged = "ema_model" in models
        key = "ema_model" if averaged else "model"
        if not _is_state(models.get(key)):
            raise PolicyError(
                f"{self._where} has no weights `{key}`",
                hint=f"its `state_dicts` has {', '.join(map(str, models)) or 'nothing'}",
            )
        return key


def _is_state(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and any(isinstance(ref, TensorRef) for ref in value.values())
    )


def sha256_of(path: Path) -> str:
    """The digest of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
