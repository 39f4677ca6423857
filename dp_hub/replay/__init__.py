"""Episodes and the original Diffusion Policy's replay buffer."""

from dp_hub.replay.episode import Episode

__all__ = ["Episode"]
