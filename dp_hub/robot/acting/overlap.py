"""What a policy is told of the plan in force when it is asked, for real-time chunking.

Black, Galliker and Levine 2025, "Real-Time Execution of Action Chunking Flow Policies". Between
question and answer the old plan goes on, so those actions are given to the policy as settled, and
those after them as a wish that fades; `dp_hub.policies.realtime_chunking` draws its chunk to them.
"""

import math
from dataclasses import dataclass

import numpy as np

from dp_hub.robot.acting.timeline import Timeline
from dp_hub.robot.clock import SAME_S


@dataclass(frozen=True, eq=False)
class Overlap:
    """Planned actions at the steps of the chunk that is asked for.

    Args:
        actions: float32 (n, Da), from the first observed step on, as a chunk is.
        weights: float32 (n,): 1 where the action is settled, 0 where it does not matter.
    """

    actions: np.ndarray
    weights: np.ndarray


def rtc_weights(n: int, *, settled: int, overlap: int) -> np.ndarray:
    """The paper's soft mask (eq. 5), float64 (n,).

    Args:
        n: steps of a chunk (the paper's H).
        settled: steps from the first that are carried out before the answer is there (d): 1.
        overlap: steps from the first that the old plan has (H - s): they fade from there on, and
            after them it is 0.
    """
    step = np.arange(n)
    share = np.clip((overlap - step) / max(overlap - settled + 1, 1), 0.0, 1.0)
    fading = share * np.expm1(share) / math.expm1(1.0)
    return np.where(step < min(settled, overlap), 1.0, np.where(step < overlap, fading, 0.0))


def overlap_of(
    planned: Timeline | None,
    *,
    start_s: float,
    settled_s: float,
    horizon: int,
    n_obs_steps: int,
    period_s: float,
) -> Overlap | None:
    """What is planned at the steps of a chunk.

    Args:
        planned: what is planned, with what was lately; None if nothing is.
        start_s: when the chunk's action of index To - 1 will be due.
        settled_s: until then the old plan is carried out, whatever the answer.
        horizon: Tp.
        n_obs_steps: To.
        period_s: between actions.
    Returns:
        None if nothing is planned at any of them.
    """
    if planned is None:
        return None
    times_s = start_s + period_s * (np.arange(horizon) - (n_obs_steps - 1))
    known = planned.covers(times_s)
    if not known.any():
        return None
    n = int(np.flatnonzero(known)[-1]) + 1
    settled = int((times_s < settled_s - SAME_S).sum())
    weights = rtc_weights(horizon, settled=settled, overlap=n)[:n] * known[:n]
    actions = planned.at(times_s[:n])
    return Overlap(actions.astype(np.float32), weights.astype(np.float32))
