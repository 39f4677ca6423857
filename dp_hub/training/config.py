"""Everything a training run is told, as one strict typed configuration."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo
from pydantic import field_validator as check

from dp_hub.config import Config
from dp_hub.policies.config import DiffusionConfig
from dp_hub.policies.kinds import PolicyConfig
from dp_hub.training.ema import EmaConfig
from dp_hub.training.metrics import LoggerName

Precision = Literal["auto", "no", "bf16"]
PUSHED_TO = re.compile(r"[^/@\s]+/[^/@\s]+")


class SplitConfig(Config):
    """Which episodes train and which validate."""

    val_ratio: float = Field(default=0.02, ge=0, lt=1)
    """Share of the episodes held out for the validation loss."""
    seed: NonNegativeInt = 42
    """Of the draw."""
    max_train_episodes: PositiveInt | None = None
    """Train on at most so many of the others."""


class OptimizerConfig(Config):
    """AdamW, and a learning rate that warms up linearly and falls to 0 along half a cosine."""

    lr: PositiveFloat = 1e-4
    """Highest learning rate."""
    betas: tuple[float, float] = (0.95, 0.999)
    """Of Adam's two averages."""
    eps: PositiveFloat = 1e-8
    """Of Adam's denominator."""
    weight_decay: float = Field(default=1e-6, ge=0)
    """Decoupled, on all weights; in transformers on those of linear layers only."""
    encoder_weight_decay: float | None = Field(default=None, ge=0)
    """On the weights of the encoder of observations, if another than on the others."""
    encoder_lr_factor: PositiveFloat = 1.0
    """What the learning rate is multiplied with for the encoder of observations."""
    warmup_steps: NonNegativeInt = 500
    """Optimiser steps."""
    max_grad_norm: PositiveFloat | None = None
    """Clip the gradient to this norm; none as the original."""


class StreamingConfig(Config):
    """Train from a dataset that is fetched file by file and held in memory pool by pool."""

    pool_mb: PositiveInt = 512
    """Memory of a pool of episodes, within which windows are drawn in any order; two are held."""
    store_gb: PositiveFloat = 10.0
    """Disk for fetched files of all datasets, shared by the processes of a machine."""
    validation_episodes: PositiveInt = 20
    """Held-out episodes that the validation loss is taken on, evenly spread over all of them."""
    patience_minutes: PositiveFloat = 5.0
    """How long to wait for a Hub that is away, for each file."""


REPORTED_SEEDS = range(100_000, 200_000)
"""What results are told of; choosing a checkpoint by them would make the result look too good."""


class RolloutConfig(Config):
    """Scores in simulation during training, on seeds kept apart from those a result is told of."""

    every: NonNegativeInt = 0
    """Optimiser steps between them; 0 for none."""
    env: str = "pusht"
    """Which simulator."""
    episodes: PositiveInt = 20
    """Per score."""
    seed: NonNegativeInt = 200_000
    """Of the first episode; results are reported from other seeds (100000 to 199999)."""

    @check("seed")
    @classmethod
    def _not_those_of_results(cls, value: int, info: ValidationInfo) -> int:
        last = value + info.data.get("episodes", 1) - 1
        if value < REPORTED_SEEDS.stop and last >= REPORTED_SEEDS.start:
            raise ValueError(
                f"episodes {value} to {last} would choose checkpoints on the seeds that results "
                f"are reported from, {REPORTED_SEEDS.start} to {REPORTED_SEEDS.stop - 1}; "
                f"begin at {REPORTED_SEEDS.stop}"
            )
        return value


class TrainConfig(Config):
    """A training run. The defaults are the paper's for PushT from state."""

    dataset: str
    """A dataset folder, or a name on the Hub, ``user/name[@revision]``."""
    out_dir: str
    """Where checkpoints, metrics and the policy go."""
    policy: PolicyConfig = DiffusionConfig()
    """What is trained."""
    split: SplitConfig = SplitConfig()
    """Which episodes train and which validate."""
    augment: Literal["pusht_mirror"] | None = None
    """``pusht_mirror``: train on every episode's mirror image too (dp_hub.envs.pusht.symmetry)."""
    streaming: StreamingConfig | None = None
    """Fetch and hold a part of the dataset at a time (docs/streaming.md); ``true``: as default."""
    batch_size: PositiveInt = 256
    """Windows per process and network call."""
    grad_accumulation: PositiveInt = 1
    """Network calls per optimiser step."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its schedule."""
    ema: EmaConfig | None = EmaConfig()
    """Averaging of the weights that are evaluated and saved; null for none."""
    mixed_precision: Precision = "no"
    """bf16, no, or auto: whichever is faster here, tried for a moment at the start."""
    compile: bool = False
    """Compile the networks with torch.compile: a minute at the start, faster steps after it."""
    seed: NonNegativeInt = 42
    """Of the weights, the noise and the order of the data."""
    cpu_threads: PositiveInt | None = None
    """Threads per process on a CPU; null for OMP_NUM_THREADS, or else this machine's cores."""
    log_every: PositiveInt = 100
    """Optimiser steps between lines of the training log."""
    eval_every: NonNegativeInt = 2000
    """Optimiser steps between validations; 0 for the end only."""
    save_every: NonNegativeInt = 5000
    """Optimiser steps between checkpoints; 0 for the end only, even of the best."""
    keep_last: PositiveInt = 1
    """Checkpoints kept because they are the newest."""
    keep_best: NonNegativeInt = 1
    """Checkpoints kept because their rollouts scored best, or else their validation loss; written
    when that is measured, whether or not ``save_every`` falls on the step."""
    rollout: RolloutConfig = RolloutConfig()
    """Scores in simulation on the way."""
    loggers: tuple[LoggerName, ...] = ("tensorboard",)
    """Besides metrics.jsonl: tensorboard, wandb, trackio."""
    project: str = "dp_hub"
    """The project's name at wandb or trackio."""
    push: str | None = None
    """``user/name`` on the Hub to push the policy of every checkpoint to, in the background."""
    push_patience_minutes: PositiveFloat = 2.0
    """How long to try at the end of the run to push what could not be pushed before."""
    steps: PositiveInt | None = None
    """Optimiser steps of the whole run."""
    epochs: PositiveInt | None = None
    """Passes over the training windows, instead of ``steps``."""
    max_minutes: Annotated[PositiveFloat | None, Field(validate_default=True)] = None
    """Minutes of training (evaluation left out) by which the run and its schedule end at last."""
    session_minutes: PositiveFloat | None = None
    """Stop in order so many minutes after the start; the same command with --resume continues."""

    @check("policy", mode="before")
    @classmethod
    def _diffusion_unless_told(cls, value: Any) -> Any:
        return {"kind": "diffusion", **value} if isinstance(value, dict) else value

    @check("mixed_precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML reads an unquoted no as false

    @check("streaming", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @check("push")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not PUSHED_TO.fullmatch(value):
            raise ValueError("a name on the Hub is user/name, without a revision")
        return value

    @check("max_minutes")
    @classmethod
    def _has_an_end(cls, value: float | None, info: ValidationInfo) -> float | None:
        limits = [info.data.get("steps"), info.data.get("epochs")]
        if None not in limits:
            raise ValueError("steps and epochs are both given; keep one")
        if value is None and limits == [None, None]:
            raise ValueError("the run needs an end: give steps, epochs or max_minutes")
        return value


MAY_CHANGE_ON_RESUME = {
    "dataset",  # its content is compared instead
    "batch_size",  # the windows of an optimiser step are compared instead
    "grad_accumulation",
    "out_dir",
    "streaming",  # the order's state is compared instead
    "cpu_threads",
    "mixed_precision",
    "compile",
    "log_every",
    "eval_every",
    "save_every",
    "keep_last",
    "keep_best",
    "rollout",
    "loggers",
    "project",
    "push",
    "push_patience_minutes",
    "steps",
    "epochs",
    "max_minutes",
    "session_minutes",
}

OPTIMIZER_MAY_CHANGE_ON_RESUME = {"lr", "warmup_steps", "max_grad_norm"}
"""What may help a run that broke down; the rest is in the optimiser's state."""
