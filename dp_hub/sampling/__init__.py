"""From episodes to batches: windows, splits, loaders."""

from dp_hub.sampling.device import DeviceSampler
from dp_hub.sampling.host import HostSampler
from dp_hub.sampling.loader import WindowDataset, WindowLoader, make_loader
from dp_hub.sampling.split import downsample_mask, validation_mask
from dp_hub.sampling.windows import WindowTable, create_indices, window_table

__all__ = [
    "DeviceSampler",
    "HostSampler",
    "WindowDataset",
    "WindowLoader",
    "WindowTable",
    "create_indices",
    "downsample_mask",
    "make_loader",
    "validation_mask",
    "window_table",
]
