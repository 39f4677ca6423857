"""Mends what can be mended without guessing, into a new folder. Pictures are never decoded.

Tables whose index columns are wrong are written again, meta/ is made anew from the rows, and every
other file is linked. The source is not touched; the new folder appears when all is there.
"""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dp_hub.dataset.checks import fix_meta, fix_rows, fix_tables
from dp_hub.dataset.checks.bounds import Bounds, find_bounds
from dp_hub.dataset.checks.finding import Report, singular
from dp_hub.dataset.checks.fix_tables import link
from dp_hub.dataset.checks.view import View, all_files, open_view
from dp_hub.dataset.checksums import PATH as CHECKSUMS
from dp_hub.dataset.checksums import covered_files, encode_checksums, file_sum
from dp_hub.errors import DataError

_DAMAGED = ("SUM-001", "SUM-002", "SUM-005", "SUM-007")
_HOPELESS = ("STRUCT-001", "STRUCT-002", "STRUCT-004", "STRUCT-009", "STRUCT-013", "STRUCT-014")
_REMADE = ("data/", "videos/", "images/", "meta/episodes/")


@dataclass(frozen=True)
class Fixed:
    """What `fix` made.

    Attributes:
        path: the new dataset.
        done: what was mended, a sentence each.
        left: what was not, and why.
    """

    path: Path
    done: tuple[str, ...]
    left: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"path": str(self.path), "done": list(self.done), "left": list(self.left)}


def fix(root: str | Path, to: str | Path, report: Report) -> Fixed:
    """A mended copy of the dataset at ``root``.

    Args:
        root: the dataset; it is only read.
        to: the folder to make.
        report: what `dp_hub.dataset.checks.check` said of ``root``.
    Raises:
        DataError: ``to`` exists, ``root`` is still open, bytes are damaged or missing, or it cannot
            be told where episodes begin.
    """
    root, to = Path(root), Path(to)
    if to.exists() or to.is_symlink():
        raise DataError(f"{to} already exists", hint="choose another folder, or remove it first")
    if root.resolve() in to.resolve().parents:
        raise DataError(f"{to} lies inside the dataset", hint="choose a folder beside it")
    _refuse_hopeless(report)
    view = open_view(root)
    if view.provenance.values.get("state") == "open":
        raise DataError(f"{root} is still being recorded", hint="finish the recording first")
    bounds, _ = find_bounds(view)
    _refuse_uncertain(view, bounds)
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = to.parent / f".{to.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        folder.mkdir()
        done, left = _make(view, bounds, folder)
        os.rename(folder, to)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    left += [f"{f.id}  {f.what}" for f in report.findings if not f.fixable and f.severity != "info"]
    return Fixed(to, tuple(map(singular, done)), tuple(left))


def _refuse_hopeless(report: Report) -> None:
    for finding in report.findings:
        if finding.id in _DAMAGED:
            raise DataError(
                f"{finding.id}: {finding.what}; damaged bytes cannot be mended",
                hint=finding.remedy,
            )
        if finding.id in _HOPELESS:
            raise DataError(
                f"{finding.id}: {finding.what}; without that nothing can be mended",
                hint=finding.remedy,
            )


def _refuse_uncertain(view: View, bounds: Bounds) -> None:
    if not len(bounds.starts):
        raise DataError(f"{view.root} holds no rows")
    if not bounds.certain:
        raise DataError(
            "it cannot be told where episodes begin: episode_index, frame_index and meta/episodes "
            "all say different things",
            hint="convert the recordings again",
        )
    if view.videos and (bounds.row < 0).any():
        raise DataError(
            "meta/episodes and data/ have different numbers of episodes, so it cannot be told "
            "where in the videos each one lies",
            hint="convert the recordings again",
        )


def _make(view: View, bounds: Bounds, folder: Path) -> tuple[list[str], list[str]]:
    done: list[str] = []
    left: list[str] = []
    plan = fix_meta.plan_features(view)
    table = fix_meta.plan_tasks(view, bounds)
    done += plan.done + table.done
    left += plan.left + table.left
    places, texts = fix_tables.write_data(view, bounds, folder, task_numbers=table.numbers)
    done += texts
    videos, texts = _link_videos(view, folder)
    done += texts
    fix_meta.write_info(view, bounds, folder, plan, n_tasks=len(table.texts))
    fix_meta.write_tasks(folder, table)
    texts, more = fix_rows.write_rows(view, bounds, folder, places, videos, table, plan)
    done += texts
    left += more
    done += fix_meta.write_card(view, folder)
    done += _link_others(view, folder)
    sums = {name: file_sum(folder / name) for name in covered_files(folder)}
    (folder / CHECKSUMS).write_bytes(encode_checksums(sums))
    done.append(f"meta/checksums.json: sha256 of {len(sums)} files")
    return done, left


def _link_videos(
    view: View, folder: Path
) -> tuple[dict[str, dict[tuple[int, int], tuple[int, int]]], list[str]]:
    """Link videos under numbers without gaps. Returns old to new (chunk, file) by feature."""
    from dp_hub.dataset.checks.view import template_path
    from dp_hub.dataset.shards import VIDEO_PATH, place

    moved: dict[str, dict[tuple[int, int], tuple[int, int]]] = {}
    renamed = 0
    for feature in view.videos:
        rows = view.episodes
        chunks = rows.ints(f"videos/{feature.name}/chunk_index")
        files = rows.ints(f"videos/{feature.name}/file_index")
        if chunks is None or files is None:
            raise DataError(f"meta/episodes doesn't say where the videos of {feature.name} are")
        moved[feature.name] = {}
        named = sorted({*zip(chunks.tolist(), files.tolist(), strict=True)})
        for number, (chunk, file) in enumerate(named):
            source = template_path(view, "video", chunk, file, feature.name)
            new = place(number)
            moved[feature.name][(chunk, file)] = new
            name = VIDEO_PATH.format(video_key=feature.name, chunk_index=new[0], file_index=new[1])
            if source is not None and source.exists():
                link(source, folder / name)
                renamed += source.relative_to(view.root).as_posix() != name
    return moved, [f"{renamed} videos renumbered"] if renamed else []


def _link_others(view: View, folder: Path) -> list[str]:
    """Files beside the tables and videos: as they are, but for those that nobody refers to."""
    from dp_hub.dataset.checks.files import unused_files

    links = 0
    for path in all_files(view.root):
        name = path.relative_to(view.root).as_posix()
        if name.startswith(_REMADE) or name == CHECKSUMS or (folder / name).exists():
            continue
        if not path.exists():
            continue  # a link to nothing
        links += path.is_symlink()
        link(path, folder / name)
    done = [f"{links} symbolic links replaced by the files"] if links else []
    if unused := unused_files(view):
        done.append(f"{len(unused)} files that nobody refers to left out")
    return done
