"""The dataset's README.md: facts for people, front matter for the Hub's viewer, how to load it.

One card for all occasions: the writer leaves a plain one in the folder, a push replaces it by the
same with the name, the licence and the picture.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dp_hub.dataset.facts import Facts, FeatureFacts, duration, megabytes, read_facts
from dp_hub.dataset.meta import read_meta
from dp_hub.hub.cards import GENERATED, SIZES
from dp_hub.hub.names import is_hub_name

PICTURE = "media/overview.png"
_MOST_TASKS = 20


def make_card(
    folder: Path, repo_id: str, license: str, facts: Mapping[str, Any]
) -> dict[str, bytes]:
    """README.md and the picture of a dataset as it goes to the Hub.

    Equal content of ``folder`` gives equal bytes.

    Args:
        folder: the dataset.
        repo_id: its name on the Hub.
        license: identifier of its licence.
        facts: ``{"tag": "data-v3"}``: the version that it becomes.
    Raises:
        DataError: the dataset is not whole, or damaged.
    """
    known = read_facts(folder)
    picture = overview_png(folder) if known.n_episodes else None
    tag = facts.get("tag")
    text = card_text(
        known,
        repo_id=repo_id,
        license=license,
        tag=tag if isinstance(tag, str) else None,
        with_picture=picture is not None,
    )
    return {"README.md": text.encode(), **({PICTURE: picture} if picture is not None else {})}


def overview_png(folder: Path) -> bytes:
    """The picture of a dataset, as PNG. Raises DataError as `dp_hub.dataset.overview.collect`."""
    from dp_hub.dataset.overview import collect

    overview = collect(read_meta(folder))
    from dp_hub.dataset.overview_drawing import draw

    return draw(overview)


def plain_card(folder: Path) -> str:
    """The text of README.md for a folder that is nowhere on a Hub yet, without a picture."""
    return card_text(read_facts(folder))


def card_text(
    facts: Facts,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    tag: str | None = None,
    with_picture: bool = False,
) -> str:
    """The text of README.md.

    Args:
        facts: about the dataset.
        repo_id: its name on the Hub; None: not known yet.
        license: identifier of its licence; None: the one in ``facts``, if any.
        tag: the version of the data.
        with_picture: whether media/overview.png goes with it.
    """
    license = license or facts.license
    title = repo_id.split("/")[1] if repo_id else "Robot demonstrations"
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(facts, license), sort_keys=False)}---\n{GENERATED}",
        f"# {title}",
        _summary(facts),
        *([f"![What is in it: frames, ranges and lengths]({PICTURE})"] if with_picture else []),
        _facts_table(facts, license, tag),
        "## Features",
        _features_table(facts),
        *_lossy_note(facts),
        "## Tasks",
        _tasks_list(facts),
        "## How to load it",
        _loading(repo_id, tag, has_video=any(f.dtype == "video" for f in facts.features)),
        *_origin(facts),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts, license: str | None) -> dict[str, Any]:
    matter: dict[str, Any] = {"license": license} if license else {}
    matter |= {
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "robotics", "dp_hub"],
        "size_categories": [_size_category(facts.n_frames)],
    }
    names = [str(source.get("name")) for source in facts.sources]
    if on_hub := sorted({name for name in names if is_hub_name(name) and "@" not in name}):
        matter["source_datasets"] = on_hub
    # Without `configs`, readers would take the tables under meta/ for data too.
    matter["configs"] = [{"config_name": "default", "data_files": "data/*/*.parquet"}]
    return matter


def _size_category(n_frames: int) -> str:
    return next((name for limit, name in SIZES if n_frames < limit), "n>10M")


def _summary(facts: Facts) -> str:
    robot = f", robot: {_plain(facts.robot_type)}" if facts.robot_type else ""
    return (
        f"{facts.n_episodes:,} episodes, {facts.n_frames:,} frames at {facts.fps:g} Hz "
        f"({duration(facts.duration_s)}){robot}. Layout: LeRobot {facts.codebase_version}."
    )


def _facts_table(facts: Facts, license: str | None, tag: str | None) -> str:
    lengths, fps = facts.lengths, facts.fps
    rows = [("licence", license or "not stated"), ("version", tag)]
    if lengths:
        seconds = f"{lengths.min / fps:.3g}, {lengths.median / fps:.3g} and {lengths.max / fps:.3g}"
        frames = f"{lengths.min:,}, {lengths.median:,.6g} and {lengths.max:,}"
        rows.append(("shortest, median and longest episode", f"{frames} frames ({seconds} s)"))
    rows += [
        ("size", f"{megabytes(facts.size.data)} of tables{_videos_size(facts)}"),
        ("fingerprint of the content", f"`{facts.fingerprint}`" if facts.fingerprint else None),
        ("state", "still being written" if facts.state == "open" else None),
    ]
    lines = [f"| {name} | {value} |" for name, value in rows if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def _videos_size(facts: Facts) -> str:
    return f", {megabytes(facts.size.videos)} of videos" if facts.size.videos else ""


def _features_table(facts: Facts) -> str:
    own = [feature for feature in facts.features if not feature.index]
    rows = [
        f"| `{f.name}` | {feature_type(f)} | {shape_text(f)} | {_plain(short_names(f))} "
        f"| {f'`{f.key}`' if f.key else ''} |"
        for f in own
    ]
    others = ", ".join(f"`{feature.name}`" for feature in facts.features if feature.index)
    table = ["| feature | type | shape | dimensions | key in the source |", "|---|---|---|---|---|"]
    index = ["", f"As in every LeRobot dataset: {others}."] if others else []
    return "\n".join([*table, *rows, *index])


def feature_type(feature: FeatureFacts) -> str:
    """``float32``, ``image (webp)``, ``video (h264 crf 23 yuv420p)``."""
    return f"{feature.dtype} ({feature.encoding})" if feature.encoding else feature.dtype


def shape_text(feature: FeatureFacts) -> str:
    """``2`` or ``96x96x3``."""
    return "x".join(map(str, feature.shape))


def short_names(feature: FeatureFacts, most: int = 4) -> str:
    """Names of the dimensions, few of them; "" for pictures, where they say nothing."""
    if feature.dtype in ("image", "video"):
        return ""
    names = feature.names
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:2])} ... {names[-1]}"


def _lossy_note(facts: Facts) -> list[str]:
    videos = [f for f in facts.features if f.lossy]
    if not videos:
        return []
    names = ", ".join(f"`{f.name}`" for f in videos)
    halved = any("420" in (f.encoding or "") for f in videos)
    colours = ", and colours with half the resolution (yuv420)" if halved else ""
    return [
        f"Lossy: the pictures of {names} were compressed{colours}. They come back close to, not "
        "equal to, what was recorded."
    ]


def _tasks_list(facts: Facts) -> str:
    items = list(facts.tasks.items())
    lines = [f"- {_plain(task) or '(not stated)'} ({_episodes(n)})"
             for task, n in items[:_MOST_TASKS]]  # fmt: skip
    if len(items) > _MOST_TASKS:
        lines.append(f"- and {len(items) - _MOST_TASKS:,} more")
    return "\n".join(lines) or "- (not stated)"


def _episodes(count: int) -> str:
    return f"{count:,} episode{'s' * (count != 1)}"


def _loading(repo_id: str | None, tag: str | None, *, has_video: bool) -> str:
    if repo_id is None:
        return (
            '```python\nimport dp_hub\n\ndataset = dp_hub.open_dataset("path/to/this/folder")\n```'
        )
    name = f"{repo_id}@{tag}" if tag else repo_id
    revision = f', revision="{tag}"' if tag else ""
    tables = " (the tables; the frames of the videos are not in them)" if has_video else ""
    return f"""With dp_hub, which checks every byte:

```bash
dp-hub pull {name}
```

```python
import dp_hub

dataset = dp_hub.open_dataset("{name}")
```

With `datasets`{tables}:

```python
from datasets import load_dataset
from huggingface_hub import snapshot_download

folder = snapshot_download("{repo_id}", repo_type="dataset"{revision})
dataset = load_dataset(folder, split="train")
```

`load_dataset("{repo_id}"{revision})` is shorter, but when the Hub cannot be reached it may hand out
another version from its cache without a word, and it prefers a folder of that name in the working
directory. What must be repeatable should name the commit: `dp-hub pull` prints it.

With LeRobot:

```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("{repo_id}"{revision})
```"""


def _origin(facts: Facts) -> list[str]:
    lines = []
    if facts.source:
        file, converter = facts.source.get("file"), facts.source.get("converter")
        if file or converter:
            how = f" by the converter `{converter}`" if converter else ""
            lines.append(f"- Converted{how} from `{file}`." if file else f"- Converted{how}.")
    for source in facts.sources:
        version = f" at `{source['revision']}`" if source.get("revision") else ""
        licence = f", licence {source['license']}" if source.get("license") else ""
        lines.append(f"- Made from {_plain(str(source.get('name')))}{version}{licence}.")
    if facts.created_by:
        lines.append(f"- Written by {_plain(facts.created_by)}.")
    return ["## Where it comes from", "\n".join(lines)] if lines else []


def _plain(text: str) -> str:
    """Text on one line in which Markdown and HTML find nothing to do."""
    line = " ".join(text.split())
    # An underscore within a word does nothing.
    return re.sub(r"[\\`*{}\[\]<>|#]|(?<!\w)_|_(?!\w)", r"\\\g<0>", line)
