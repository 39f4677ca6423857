"""Fixtures that find the real demonstrations; tests that need them skip elsewhere."""

import os

# Before torch is there: the networks here are small, and threads that wait for each other on a busy
# machine make a test a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dp_hub.hub import LocalHub
from dp_hub.processes import scheduling_kept

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of some shells
    signal.signal(signal.SIGINT, signal.default_int_handler)  # programs under test hear it again
# The same examples each time, however slow the machine is. To look for new ones:
# pytest --hypothesis-profile search
settings.register_profile(
    "same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("same")
SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def scheduled_as_before() -> Iterator[None]:
    """Tests that encode AV1 on their own make no real-time process of the ones after them."""
    with scheduling_kept():
        yield


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


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A running Hub, with this process as a client of its user ``me`` with empty caches."""
    with LocalHub(tmp_path / "server") as running:
        client_of(running, tmp_path / "home", monkeypatch)
        yield running
        # While the Hub is there: of one that is away they would try for long, and on every failure
        # the library closes the connections of all threads.
        for thread in threading.enumerate():
            if thread.name == "dp_hub-background":
                thread.join(30)


def client_of(hub: LocalHub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process at a Hub. huggingface_hub may have been imported long before."""
    from huggingface_hub import constants

    for key, value in hub.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("DP_HUB_CACHE", str(home / "dp_hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))


MakeShards = Callable[..., Path]


@pytest.fixture(scope="session")
def one_file_each(tmp_path_factory: pytest.TempPathFactory) -> MakeShards:
    """``one_file_each(zip, images=..., drop=[...])``: a dataset with a file for every episode."""
    from dp_hub.dataset import shards
    from dp_hub.dataset.convert import convert

    def make(source: Path, **options: object) -> Path:
        to = tmp_path_factory.mktemp("shards") / "dataset"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "ROW_GROUPS_PER_FILE", 1)
            patch.setattr(shards, "VIDEO_FILE_MB", 0)
            convert("zarr", source, to, **options)
        return to

    return make


@pytest.fixture(scope="session")
def pusht_webp(one_file_each: MakeShards, pusht_first5_zip: Path) -> Path:
    """Five demonstrations with pictures in five data files."""
    return one_file_each(pusht_first5_zip, images="webp")


@pytest.fixture(scope="session")
def pusht_video(one_file_each: MakeShards, pusht_first5_zip: Path) -> Path:
    """Five demonstrations in five data files and five videos."""
    return one_file_each(pusht_first5_zip, images="video")


@pytest.fixture(scope="session")
def pusht_206_files(one_file_each: MakeShards, pusht_zip: Path) -> Path:
    """All 206 demonstrations without pictures, each in a data file of its own."""
    return one_file_each(pusht_zip, drop=["img"])
