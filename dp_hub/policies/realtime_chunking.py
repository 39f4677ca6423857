"""Real-time chunking: a chunk that goes on from the one that is being carried out.

While a policy computes, the robot carries out the end of its last chunk. A new chunk drawn without
regard to that may be another of several good ways to act, and the robot jumps. So sampling is drawn
to the planned actions (Black, Galliker and Levine 2025, "Real-Time Execution of Action Chunking
Flow Policies"): at every step the clean chunk the network expects is compared with them, and moved
along the gradient of the difference, weighted by how settled each action is. Nothing is trained.

The paper's formulas (eq. 2 to 4) are for flow matching, x = (1 - t) noise + t clean. Written with
alpha and sigma, the shares of clean chunk and noise (t and 1 - t there), they are about the clean
chunk alone, and so hold for diffusion with any prediction and solver:

    clean + min(beta, (alpha² + sigma²) / alpha) · (weights · (planned - clean)) dclean/dx

The paper bounds the velocity's change, which is this over sigma. With its five steps that is the
same; with more it would bind where the chunk is all but clean and should be moved to the plan.

Where there is next to no signal yet, alpha is small and the gradient mostly the network's errors
divided by it. So no value is moved out of the range of actions: without that the noise that goes
with a clipped chunk would push it the other way (DDIM), or sampling would not end in finite numbers
(DPM-Solver++).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dp_hub.errors import PolicyError
from dp_hub.policies.objectives import Estimated, Objective, Predict

How = Literal["guidance", "inpaint"]


@dataclass(frozen=True, eq=False)
class Prefix:
    """Planned actions that a new chunk has to go on from.

    Args:
        actions: float (B, n, Da), raw units, for the first n steps of the chunk.
        weights: float (n,) in [0, 1]: 1 where an action is settled, 0 where it does not matter;
            `dp_hub.robot.acting.overlap.rtc_weights` has the paper's.
        how: ``guidance``: the paper's, which takes a backward pass through the network at every
            step, about three times the time. ``inpaint``: the clean chunk is moved to the planned
            actions as far as the weights say at every step, which costs nothing. As steps add up,
            all that has some weight is held to the plan, so it answers less to what is new.
        beta: of the formula; larger draws more strongly where there is much noise yet.
    """

    actions: Tensor
    weights: Tensor
    how: How = "guidance"
    beta: float = 5.0


def drawn_to(
    predict: Predict, objective: Objective, planned: Tensor, weights: Tensor, prefix: Prefix
) -> Predict:
    """A network whose predictions are drawn to planned actions.

    Args:
        predict: the network. For ``guidance`` all it works with besides its argument are tensors
            that autograd may see (`for_autograd`).
        objective: what samples with it.
        planned: normalised actions like a chunk, float32 (B, Tp, D); anything where ``weights``
            are 0.
        weights: float32 (Tp, D).
        prefix: how.
    """

    def inpainted(x: Tensor, step: int) -> Tensor:
        estimate, predicted = objective.estimate(step), predict(x, step)
        by = weights * (planned - estimate.unclipped(x, predicted))
        return estimate.moved(predicted, by)

    def guided(x: Tensor, step: int) -> Tensor:
        estimate = objective.estimate(step)
        with torch.inference_mode(False), torch.enable_grad():
            here = x.clone().requires_grad_()
            predicted = predict(here, step)
            clean = estimate.clean(here, predicted)
            error = weights * (planned - clean.detach())
            (uphill,) = torch.autograd.grad(clean, here, error)
        by = _within_range(clean.detach(), _gain(estimate, prefix.beta) * uphill, planned)
        return estimate.moved(predicted.detach(), by)

    return inpainted if prefix.how == "inpaint" else guided


def _gain(estimate: Estimated, beta: float) -> float:
    alpha, sigma = estimate.alpha, estimate.sigma
    return min(beta, (alpha**2 + sigma**2) / alpha) if alpha > 0 else beta


def _within_range(clean: Tensor, by: Tensor, planned: Tensor) -> Tensor:
    """``by`` as far as no value of ``clean`` is moved out of [-1, 1], or farther out."""
    most = planned.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1)  # or of the plan itself
    low, high = torch.minimum(clean, -most), torch.maximum(clean, most)
    return (clean + by).clamp(low, high) - clean


def laid_out(
    prefix: Prefix, noise: Tensor, action_dim: int, normalize: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Planned actions and weights like what is sampled.

    Args:
        prefix: checked here.
        noise: float32 (B, Tp, D), of which the first Da numbers become actions.
        action_dim: Da.
        normalize: of actions.
    Returns:
        ``planned`` float32 (B, Tp, D), normalised, and ``weights`` float32 (Tp, D), on the device
        of the noise; both 0 where nothing is planned.
    Raises:
        PolicyError: another number of rows, actions or weights, or weights outside [0, 1].
    """
    rows, horizon, width = noise.shape
    actions, weights = prefix.actions, prefix.weights
    n = actions.shape[1] if actions.ndim == 3 else 0
    if tuple(actions.shape) != (rows, n, action_dim) or not 1 <= n <= horizon:
        raise PolicyError(
            f"the planned actions have shape {tuple(actions.shape)}, expected "
            f"({rows}, n, {action_dim}) with n from 1 to {horizon}"
        )
    if tuple(weights.shape) != (n,) or not bool(((weights >= 0) & (weights <= 1)).all()):
        raise PolicyError(
            f"{n} planned actions have weights of shape {tuple(weights.shape)}, expected ({n},), "
            "each from 0 to 1"
        )
    planned = normalize(actions.to(noise.device, torch.float32))
    shares = weights.to(noise.device, torch.float32)[:, None].expand(-1, action_dim)
    rest = (0, width - action_dim, 0, horizon - n)
    return nn.functional.pad(planned, rest), nn.functional.pad(shares, rest)


def for_autograd(value: Tensor) -> Tensor:
    """A copy that a graph may be built on, of what was computed in inference mode."""
    with torch.inference_mode(False):
        return value.clone()
