"""Diffusion Policy's zarr ReplayBuffer. Placeholder until the converter lands."""


class ReplayZarr:
    """``data/<key>`` arrays and ``meta/episode_ends``."""

    name = "zarr"
