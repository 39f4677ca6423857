"""The words of scheduling: when actions are due, how answers meet, what a late one does."""

from typing import Literal

from pydantic import Field

from dp_hub.config import Config

Timing = Literal["observed", "arrival"]
Merge = Literal["replace", "blend", "ensemble"]
Late = Literal["extend", "hold", "stop"]


class Rules(Config):
    """How a policy's answers become a plan. The defaults suit a policy that answers in time."""

    timing: Timing = "observed"
    """``observed``: an action is due at the time of the observation it was predicted for, and what
    is past when the answer comes is dropped: latency is compensated. ``arrival``: the first action
    starts when the answer comes, the others follow, and nothing is dropped."""
    merge: Merge = "replace"
    """Where a new answer and older ones overlap: ``replace``: the new one counts. ``blend``: from
    the plan in force to the new answer, by weights that grow evenly over the overlap.
    ``ensemble``: the mean of all answers for a time, as ACT's."""
    ensemble: float = Field(default=0.01, allow_inf_nan=False)
    """The m of ``ensemble``: weights are exp(-m i), i = 0 the oldest answer."""
    late: Late = "extend"
    """When the next answer is late: ``extend``: go on with the rest of the old chunk. ``hold``:
    after n_action_steps stay where it is. ``stop``: likewise, and end the rollout."""
