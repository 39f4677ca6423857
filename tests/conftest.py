"""Fixtures that find the real demonstrations; tests that need them skip elsewhere."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real demonstrations and recordings beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real demonstrations are not at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def pusht_zip(shared_data: Path) -> Path:
    """The full PushT demonstrations: 206 episodes, 25,650 frames."""
    return shared_data / "pusht" / "pusht_cchi_v7_replay.zarr.zip"


@pytest.fixture(scope="session")
def pusht_first5_zip(shared_data: Path) -> Path:
    """The first five PushT demonstrations: 738 frames, images as uint8."""
    return shared_data / "pusht" / "pusht_first5.zarr.zip"
