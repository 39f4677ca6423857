"""The folder as a thing to be handed on: card, licence, links, names, sizes, paths in the text."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dp_hub.dataset.checks.finding import Finding, found, some
from dp_hub.dataset.checks.thresholds import BIG_FILE_BYTES
from dp_hub.dataset.checks.view import View, all_files, template_path
from dp_hub.errors import HubError
from dp_hub.hub.cards import front_matter

_HOME = re.compile(r"(?:/home/|/Users/|[A-Za-z]:\\+Users\\+)[^/\\\s\"']+")
_CONTENT = ("data/", "videos/", "images/", "meta/episodes/")


def check_card(root: Path) -> Iterator[Finding]:
    """README.md: front matter, licence, tag."""
    try:
        text = (root / "README.md").read_text(encoding="utf-8")
    except OSError:
        text = ""
    except UnicodeDecodeError:
        yield found("CARD-003", "README.md is not text")
        return
    try:
        matter = front_matter(text)
    except HubError as error:
        yield found("CARD-003", error.message)
        return
    if not matter.get("configs"):
        what = "has no `configs` in its front matter" if text else "is missing"
        yield found("CARD-001", f"README.md {what}")
    if not matter.get("license"):
        yield found("CARD-002", "README.md names no licence")
    tags = matter.get("tags")
    if text and "LeRobot" not in (tags if isinstance(tags, list) else []):
        yield found("CARD-004", "README.md hasn't the tag LeRobot")


def unused_files(view: View) -> list[str]:
    """Files of data/, videos/, images/ and meta/episodes that nobody refers to."""
    used = {part.name for part in view.data} | set(view.episodes.files)
    for feature in view.videos:
        rows = view.episodes
        chunks = rows.ints(f"videos/{feature.name}/chunk_index")
        files = rows.ints(f"videos/{feature.name}/file_index")
        if chunks is None or files is None:
            folder = view.root / "videos" / feature.name
            used |= {p.relative_to(view.root).as_posix() for p in folder.rglob("*.mp4")}
            continue
        for chunk, file in {*zip(chunks.tolist(), files.tolist(), strict=True)}:
            path = template_path(view, "video", chunk, file, feature.name)
            if path is not None:
                used.add(path.relative_to(view.root).as_posix())
    names = (path.relative_to(view.root).as_posix() for path in all_files(view.root))
    return [name for name in names if name.startswith(_CONTENT) and name not in used]


def check_unused(view: View) -> Iterator[Finding]:
    """Files that nobody refers to."""
    if not view.features or not view.episodes.n:
        return
    if names := unused_files(view):
        is_open = view.provenance.values.get("state") == "open"
        yield found(
            "STRUCT-017",
            f"{len(names)} files belong to nothing: {some(names)}",
            severity="info" if is_open else None,
        )


def check_portable(root: Path) -> Iterator[Finding]:
    """Links, names, sizes, and paths of somebody's home folder."""
    links: list[str] = []
    outside: list[str] = []
    big: list[str] = []
    by_case: dict[str, list[str]] = {}
    for path in all_files(root):
        name = path.relative_to(root).as_posix()
        by_case.setdefault(name.casefold(), []).append(name)
        if path.is_symlink():
            target = Path(os.readlink(path))
            # Hugging Face's cache consists of links into a folder `blobs`.
            if "blobs" not in target.parts:
                (outside if target.is_absolute() else links).append(name)
        if path.exists() and path.stat().st_size > BIG_FILE_BYTES:
            big.append(name)
    if outside:
        yield found("PORT-002", f"{len(outside)} links lead out by absolute paths: {some(outside)}")
    if links:
        yield found("PORT-002", f"{len(links)} symbolic links: {some(links)}")
    for clash in (names for names in by_case.values() if len(names) > 1):
        yield found("PORT-003", f"names differ in case only: {some(clash)}")
    if big:
        yield found("PORT-004", f"{len(big)} files are larger than 5 GB: {some(big)}")
    yield from _homes(root)


def _homes(root: Path) -> Iterator[Finding]:
    for name in ("README.md", "meta/info.json", "meta/dp_hub.json"):
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if name.endswith(".json"):
            try:
                text = json.dumps(json.loads(text), ensure_ascii=False)
            except (ValueError, RecursionError):
                continue
        if seen := sorted(set(_HOME.findall(text))):
            yield found("PORT-005", f"{name} holds {some(seen)}")
