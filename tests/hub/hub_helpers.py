"""What the Hub's tests share."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dp_hub.hub import LocalHub


def client_command(*words: str, code: str | None = None) -> list[str]:
    program = code or "from dp_hub.cli.main import main; main()"
    return [sys.executable, "-c", program, *words]


def client_env(hub: LocalHub, home: Path, **env: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return {**clean, **hub.env, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **env}


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by relative path, but for what it remembers of the Hub."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".dp_hub" not in path.relative_to(folder).parts
    }


def become_client(monkeypatch: pytest.MonkeyPatch, hub: LocalHub, home: Path) -> None:
    """Point this process at ``hub``. huggingface_hub may have been imported long before."""
    from huggingface_hub import constants

    for key, value in hub.env.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))


class Hurried:
    """The module ``time`` for who need not wait between attempts."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.01))


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub and pulls try again at once."""
    monkeypatch.setattr("dp_hub.hub.fetching.WAITS_S", (0.01, 0.01, 0.01))
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", Hurried())
