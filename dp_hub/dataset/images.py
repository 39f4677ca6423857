"""Pictures to bytes and back, without loss, several at a time.

WebP method 1 at quality 20 was chosen on the PushT demonstrations (96 px, one core): 507 bytes a
frame at 6,500 frames/s. Method 0 gives 666 bytes at 7,300, method 4 at quality 75 476 bytes at
3,100, PNG 1,192 bytes at 4,100. Pillow lets go of the interpreter lock while it encodes.

Small PNGs are written without compression of their own (55,000 frames/s) and the Parquet column
is compressed with zstd instead, which sees what successive frames have in common: 255 bytes a
frame. The price is paid by readers that keep the bytes uncompressed, as the cache of `datasets`
does (27.8 kB a frame at 96 px); so it is not the default.
"""

import io
import math
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from dp_hub.errors import DataError

_OPTIONS: dict[str, dict[str, Any]] = {
    "webp": {"format": "WEBP", "lossless": True, "method": 1, "quality": 20},
    "png": {"format": "PNG", "compress_level": 6},
}
# What datasets hold, ours and others'. Not all that Pillow knows: for some it starts programs.
_FORMATS = ("WEBP", "PNG", "JPEG", "BMP", "TIFF", "JPEG2000", "GIF", "PPM")
_STORED_PX = 128
_STORED_BYTES = 100_000_000  # the Hub's viewer refuses row groups above 286 MiB
BATCH = 32  # frames per task: enough to hide the cost of handing it over


def encode_image(picture: np.ndarray, encoding: str) -> bytes:
    """One picture, uint8 ``(H, W, 3)`` or ``(H, W, 1)``, as lossless ``webp`` or ``png``."""
    return _encode(picture[None], encoding)[0]


def stored_png(picture: np.ndarray) -> bytes:
    """One picture, uint8 ``(H, W, 3)`` or ``(H, W, 1)``, as a PNG with uncompressed rows."""
    height, width, channels = picture.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each row begins with "no filter"
    rows[:, 1:] = picture.reshape(height, width * channels)
    colour = 2 if channels == 3 else 0
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def decode_image(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The picture of `encode_image`, uint8 ``shape`` = ``(H, W, C)``.

    Raises:
        DataError: not a picture, or one of another size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            picture = np.asarray(image.convert("RGB" if shape[2] == 3 else "L"))
    except (OSError, ValueError) as error:
        raise DataError(f"a stored picture cannot be decoded: {error}") from None
    if picture.shape[:2] != shape[:2]:
        raise DataError(f"a stored picture is {picture.shape[:2]}, not {shape[:2]}")
    return picture.reshape(shape)


def episode_encoder(
    encoding: str, length: int, shape: tuple[int, ...]
) -> Callable[[np.ndarray], list[bytes]]:
    """What encodes uint8 ``(t, H, W, C)``, some frames of an episode of ``length`` frames."""
    small = max(shape[:2]) <= _STORED_PX and length * math.prod(shape) <= _STORED_BYTES
    if encoding == "png" and small:
        return lambda pictures: [stored_png(picture) for picture in pictures]
    return lambda pictures: _encode(pictures, encoding)


def _encode(pictures: np.ndarray, encoding: str) -> list[bytes]:
    height, width, channels = pictures.shape[1:]
    options = _OPTIONS[encoding]
    # One Pillow image for all: making one costs more than filling it.
    image = Image.new("RGB" if channels == 3 else "L", (width, height))
    encoded = []
    for picture in pictures:
        image.frombytes(np.ascontiguousarray(picture).data)
        buffer = io.BytesIO()
        image.save(buffer, **options)
        encoded.append(buffer.getvalue())
    return encoded
