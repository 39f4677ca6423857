"""Pictures followed by their mirror images, which are made when they are read, not stored."""

from collections.abc import Callable

import numpy as np

from dp_hub.sampling.frame_file import FrameFile

Flip = Callable[[np.ndarray], np.ndarray]


class TwinPictures:
    """A column of 2 N pictures: N of a file (or of memory), then the mirror image of each.

    Args:
        pictures: uint8 (N, H, W, C); a memory map is read from its file, window by window.
        flip: mirrors pictures (..., H, W, C) into such of the same shape.
    """

    def __init__(self, pictures: np.ndarray, flip: Flip) -> None:
        self._pictures = FrameFile.of(pictures) or pictures
        self._n, self._flip = len(pictures), flip
        self.shape, self.dtype = (2 * self._n, *pictures.shape[1:]), pictures.dtype
        self.ndim = pictures.ndim

    def __len__(self) -> int:
        return 2 * self._n

    def windows(self, frames: np.ndarray) -> np.ndarray:
        """The pictures of some windows, (B, n, H, W, C); none is partly mirrored.

        Args:
            frames: int (B, n), as :meth:`dp_hub.sampling.frame_file.FrameFile.windows` takes them.
        """
        twin = frames[:, 0] >= self._n
        originals = np.where(twin[:, None], frames - self._n, frames)
        if isinstance(self._pictures, FrameFile):
            windows = self._pictures.windows(originals)
        else:
            windows = self._pictures.take(originals, axis=0)
        windows[twin] = self._flip(windows[twin])
        return windows
