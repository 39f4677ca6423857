"""What a folder or repository is, told from its files, and which of its files belong to it."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from dp_hub.errors import HubError

Kind = Literal["dataset", "policy"]
KINDS: tuple[Kind, ...] = ("dataset", "policy")
REPO_TYPE: dict[Kind, str] = {"dataset": "dataset", "policy": "model"}
LOOKED_FOR = "a dataset has meta/info.json, a policy has config.json and model.safetensors"

_MEDIA = r"media/[\w.-]+\.(png|jpe?g|webp|gif|mp4)"
# Closed lists: nothing else of a folder is ever published or removed from the Hub.
_BELONGS: dict[Kind, re.Pattern[str]] = {
    "dataset": re.compile(
        r"README\.md|LICENSE(\.\w+)?"
        r"|meta/(info\.json|stats\.json|dp_hub\.json|checksums\.json|tasks\.parquet)"
        r"|meta/alignment\.(json|png)"
        r"|meta/episodes/chunk-\d{3,}/file-\d{3,}\.parquet"
        r"|data/chunk-\d{3,}/file-\d{3,}\.parquet"
        r"|videos/[^/]+/chunk-\d{3,}/file-\d{3,}\.mp4"
        rf"|{_MEDIA}"
    ),
    # Optimizer state, logs and rollout data stay at home.
    "policy": re.compile(
        r"README\.md|LICENSE(\.\w+)?|config\.json|model\.safetensors"
        r"|train(ing)?(_config)?\.(ya?ml|json)|(dataset|eval|results|scores)[\w-]*\.json"
        r"|policy_(pre|post)processor[\w-]*\.(json|safetensors)"  # LeRobot's
        rf"|{_MEDIA}"
    ),
}


def kind_of(paths: Iterable[str]) -> Kind | None:
    """What a set of files is, or None."""
    found = set(paths)
    if "meta/info.json" in found:
        return "dataset"
    if {"config.json", "model.safetensors"} <= found:
        return "policy"
    return None


def kind_of_folder(folder: Path) -> Kind:
    """What a folder is.

    Raises:
        HubError: it doesn't exist, or is neither.
    """
    if not folder.is_dir():
        raise HubError(f"no folder at {folder}")
    names = ("meta/info.json", "config.json", "model.safetensors")
    kind = kind_of(name for name in names if (folder / name).is_file())
    if kind is None:
        raise HubError(f"{folder} is neither a dataset nor a policy", hint=LOOKED_FOR)
    return kind


def belongs(path: str, kind: Kind) -> bool:
    """Whether a file of this path is part of a dataset or policy."""
    return _BELONGS[kind].fullmatch(path) is not None


def is_content(path: str) -> bool:
    """Whether a dataset's file holds its data, rather than words and pictures about it."""
    return path.startswith(("meta/", "data/", "videos/"))
