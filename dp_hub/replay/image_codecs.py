"""JPEG XL and JPEG 2000 chunks: UMI's replay buffers and the original's caches of pictures.

numcodecs knows neither; imagecodecs, the extra ``jpegxl``, adds them under the names that both
projects use. What they wrote in other versions of it is read all the same: settings of the encoder
that this version does not know mean nothing to the decoder.
"""

import inspect
from typing import Any

INSTALL = 'pip install "dp_hub[jpegxl]"'


def register_image_codecs() -> None:
    """Make numcodecs, and so zarr, know them, if imagecodecs is installed."""
    try:
        from imagecodecs import numcodecs as provided
    except ImportError:
        return
    from numcodecs.registry import register_codec

    provided.register_codecs(verbose=False)
    for kind in (provided.Jpegxl, provided.Jpeg2k):
        register_codec(_tolerant(kind))


def _tolerant(kind: Any) -> Any:
    """The codec ``kind``, made from any version's settings; threads are those of this machine."""
    known = set(inspect.signature(kind.__init__).parameters) - {"self", "numthreads"}

    class Tolerant(kind):
        @classmethod
        def from_config(cls, config: dict[str, Any]) -> Any:
            return cls(**{key: value for key, value in config.items() if key in known})

    Tolerant.__name__ = kind.__name__
    return Tolerant
