"""Source formats of a third party, made up and installed for the tests that ask for them."""

from pathlib import Path

import pytest
from made_formats import install


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sources, with one for datasets in it; the formats are installed."""
    monkeypatch.syspath_prepend(install(tmp_path_factory.mktemp("installed")))
    folder = tmp_path_factory.mktemp("made")
    (folder / "out").mkdir()
    return folder
