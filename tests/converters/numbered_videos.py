"""Videos whose frames carry their number in the pixels, so that a test sees which one it got."""

from fractions import Fraction

import av
import numpy as np

SIZE = (48, 64)
_BITS = 10


def numbered(number, size=SIZE):
    """A picture whose upper half is the number in black and white bars, uint8 (H, W, 3)."""
    picture = np.full((*size, 3), 90, np.uint8)
    width = size[1] // _BITS
    for bit in range(_BITS):
        picture[: size[0] // 2, bit * width : (bit + 1) * width] = 250 if number >> bit & 1 else 5
    picture[size[0] // 2 :, :, 0] = 200  # red below: colours in the right order
    picture[size[0] // 2 :, :, 2] = 40
    return picture


def number_of(picture):
    """The number in a picture, which may have been through a lossy codec."""
    height, width = picture.shape[:2]
    assert picture[height * 3 // 4, width // 2, 0] > 120 > picture[height * 3 // 4, width // 2, 2]
    middles = [bit * (width // _BITS) + width // _BITS // 2 for bit in range(_BITS)]
    return sum(1 << bit for bit, x in enumerate(middles) if picture[height // 4, x].mean() > 127)


def write_numbered(path, count, *, fps=30, times_s=None, first=0, size=SIZE, bf=2, gop=12):
    """A video of frames ``first`` .. ``first + count - 1``; at its own times, if there are some."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"bf": str(bf), "preset": "veryfast", "crf": "18"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.time_base = stream.codec_context.time_base = Fraction(1, 90_000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(first + number, size), format="rgb24")
            at_s = number / Fraction(fps) if times_s is None else times_s[number]
            frame.pts, frame.time_base = round(at_s * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
