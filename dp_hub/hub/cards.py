"""README.md of datasets: the front matter that the Hub reads, and a card where there is none."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dp_hub.errors import HubError
from dp_hub.hub.names import is_hub_name

FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)(?:^|\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
# Cards with this line are made anew at each push; others are the user's and stay.
GENERATED = "<!-- made by dp-hub push; remove this line to keep your own changes -->"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"),
         (10**7, "1M<n<10M"))  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A dataset that another one was made from. What is not known is None."""

    name: str
    revision: str | None
    license: str | None


def front_matter(text: str) -> dict[str, Any]:
    """The YAML block at the top of a README; empty if there is none.

    Raises:
        HubError: it isn't a YAML mapping.
    """
    match = FRONT_MATTER.match(text)
    if match is None:
        return {}
    try:
        values = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise HubError(f"the front matter of README.md is not YAML: {error}") from None
    if not isinstance(values, dict | None):
        raise HubError(f"the front matter of README.md is a {type(values).__name__}, no mapping")
    return values or {}


def license_of(text: str | None) -> str | None:
    """The licence that a README names."""
    found = front_matter(text).get("license") if text else None
    return str(found) if found else None


def check_license(license: str) -> str:
    """``license`` itself. Raises HubError if it doesn't have the form of an identifier."""
    if not LICENSE.fullmatch(license):
        raise HubError(
            f"{license!r} is not the identifier of a licence",
            hint="for example cc-by-4.0, cc0-1.0, mit, apache-2.0, or other",
        )
    return license


def with_license(text: str, license: str) -> str:
    """``text`` naming ``license`` in its front matter. Nothing else in it changes.

    Raises:
        HubError: it names another one.
    """
    named = license_of(text)
    if named == license:
        return text
    if named is not None:
        raise HubError(
            f"README.md names the licence {named}, the push {license}",
            hint="change one of the two",
        )
    line = f"license: {license}\n"
    match = FRONT_MATTER.match(text)
    if match is None:
        return f"---\n{line}---\n\n{text}"
    kept = [row for row in match[1].splitlines() if not re.match(r"license\s*:", row)]
    block = "".join(f"{row}\n" for row in kept)
    return f"---\n{line}{block}---\n{text[match.end() :]}"


def dataset_card(
    repo_id: str, info: Mapping[str, Any], license: str, sources: Sequence[Source] = ()
) -> str:
    """A README.md for a LeRobot v3.0 dataset, from its meta/info.json and what it was made from."""
    frames, episodes = int(info.get("total_frames", 0)), int(info.get("total_episodes", 0))
    matter = {
        "license": license,
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "robotics", "dp_hub"],
        "size_categories": [_size(frames)],
        # Without this the viewer would also take the tables under meta/ for data.
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    on_the_hub = [source.name for source in sources if is_hub_name(source.name)]
    if on_the_hub:
        matter["source_datasets"] = list(dict.fromkeys(on_the_hub))
    rows = [
        f"| `{name}` | {feature.get('dtype')} | {tuple(feature.get('shape', ()))} |"
        for name, feature in dict(info.get("features", {})).items()
    ]
    robot = f", robot {info['robot_type']}" if info.get("robot_type") else ""
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(matter, sort_keys=False)}---",
            GENERATED,
            "",
            f"# {repo_id.split('/')[1]}",
            "",
            f"{episodes:,} episodes, {frames:,} frames at {info.get('fps')} Hz{robot}, "
            f"in the LeRobot {info.get('codebase_version')} layout.",
            "",
            "| feature | dtype | shape |",
            "|---|---|---|",
            *rows,
            "",
            *_sources(sources),
            "```bash",
            f"dp-hub pull {repo_id}",
            "```",
            "",
            "```python",
            "import dp_hub",
            "",
            f'dataset = dp_hub.open_dataset("{repo_id}")',
            "```",
            "",
        ]
    )


def _sources(sources: Sequence[Source]) -> list[str]:
    if not sources:
        return []
    rows = [
        f"| {_cell(source.name)} | {_cell(source.revision)} | {_cell(source.license)} |"
        for source in sources
    ]
    return ["Made from:", "", "| dataset | revision | licence |", "|---|---|---|", *rows, ""]


def _cell(text: str | None) -> str:
    """Text of others in a table: on one line, and never read as markup."""
    if text is None:
        return "not recorded"
    return "`" + re.sub(r"[`|\s]+", " ", text).strip() + "`"


def _size(frames: int) -> str:
    for limit, name in SIZES:
        if frames < limit:
            return name
    return "n>10M"
