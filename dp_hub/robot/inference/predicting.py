"""The process of a policy: loads it, warms it up, answers questions until it is told to stop.

Imports torch, so it is imported in that process only.
"""

import time
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from dp_hub.errors import PolicyError
from dp_hub.policies import realtime_chunking
from dp_hub.policies.saving import Precision, load_policy
from dp_hub.robot.inference.info import PolicyInfo, Prefix, Question
from dp_hub.robot.inference.local import PolicyJob
from dp_hub.robot.inference.mailbox import Mailbox, Reply
from dp_hub.robot.worker import Context

_LOOK_S = 0.0005
_WARM_UP = 2


def run(context: Context, job: PolicyJob) -> None:
    """The process's life."""
    if job.loading.threads is not None:
        torch.set_num_threads(job.loading.threads)
    mailbox = Mailbox.attach(job.mail)
    predictor = Predictor(job)
    predictor.warm_up()
    context.ready()
    while not context.stopping:
        context.beat(time.monotonic())
        question = mailbox.question()
        if question is None:
            time.sleep(_LOOK_S)
        else:
            mailbox.reply(predictor.reply(question))


class Predictor:
    """A loaded policy. Raises PolicyError: it cannot be loaded, or is not the one expected."""

    def __init__(self, job: PolicyJob) -> None:
        how = job.loading
        self._policy = load_policy(
            how.folder,
            device=how.device,
            scheduler=how.scheduler,
            num_inference_steps=how.steps,
            precision=cast(Precision, how.precision),
        )
        self._info = job.info
        self._delay_s, self._realtime = how.delay_s, how.realtime
        if info_of(self._policy, job.info) != job.info:
            raise PolicyError(f"the policy in {how.folder} has changed since it was looked at")

    def warm_up(self) -> None:
        """The first predictions are slow: memory is taken and kernels are chosen."""
        obs = {
            name: np.zeros(self._info.observed_shape(name), self._info.observed_dtype(name))
            for name in self._info.observed
        }
        for _ in range(_WARM_UP):
            self._predict(Question(0, obs, 0, None))
        if self._realtime:
            prefix = Prefix(
                np.zeros(self._info.chunk_shape, np.float32)[:1], np.ones(1, np.float32)
            )
            self._predict(Question(0, obs, 0, prefix))

    def reply(self, question: Question) -> Reply:
        """The policy's answer, or why it has none."""
        began_s = time.monotonic()
        try:
            chunk = self._predict(question)
        except PolicyError as error:
            return Reply(question.number, None, 0.0, error.message)
        time.sleep(self._delay_s)
        return Reply(question.number, chunk, time.monotonic() - began_s)

    def _predict(self, question: Question) -> np.ndarray:
        """float32 (Tp, Da). Raises PolicyError."""
        obs = {name: torch.from_numpy(value)[None] for name, value in question.obs.items()}
        generator = None
        if question.seed is not None:
            # On the CPU: the same noise on every device.
            generator = torch.Generator().manual_seed(question.seed)
        predicted = self._policy.predict_action(
            obs, generator=generator, prefix=_for_torch(question.prefix)
        )["action_pred"]
        chunk = predicted[0].float().cpu().numpy()
        if not np.isfinite(chunk).all():
            raise PolicyError("the policy predicts numbers that are not finite")
        return chunk


def info_of(policy: Any, like: PolicyInfo) -> PolicyInfo:
    """What a loaded policy is, with what it does not know of itself taken from ``like``."""
    config = policy.config
    return replace(
        like,
        kind=config.kind,
        n_obs_steps=config.n_obs_steps,
        n_action_steps=config.n_action_steps,
        horizon=config.horizon,
        observations=tuple(config.observations),
        action=config.action,
        features={
            name: (shape,) if isinstance(shape, int) else tuple(shape)
            for name, shape in policy.features.items()
        },
    )


def _for_torch(prefix: Prefix | None) -> realtime_chunking.Prefix | None:
    if prefix is None:
        return None
    return realtime_chunking.Prefix(
        torch.from_numpy(prefix.actions)[None],
        torch.from_numpy(prefix.weights),
        cast(realtime_chunking.How, prefix.how),
        prefix.beta,
    )
