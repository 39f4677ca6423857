"""Seeded damage to the bytes of a file, for tests that say: read, or refused, and nothing else."""

import numpy as np


def mutations(data, count, seed=0):
    """Bytes flipped, ends cut off, ranges zeroed, blocks exchanged: ``count`` damaged copies."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        changed = bytearray(data)
        low, high = sorted(rng.integers(0, len(data), 2).tolist())
        if number % 4 == 0:
            for place in rng.integers(0, len(data), 1 + number % 3).tolist():
                changed[place] ^= int(rng.integers(1, 256))
        elif number % 4 == 1:
            del changed[low:]
        elif number % 4 == 2:
            high = min(high, low + 64)
            changed[low:high] = bytes(high - low)
        else:
            size = min(64, (high - low) // 2)
            one, other = changed[low : low + size], changed[high - size : high]
            changed[low : low + size], changed[high - size : high] = other, one
        yield bytes(changed)
