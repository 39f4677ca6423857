"""What a folder is to be on the Hub: its own files, and a README.md that names the licence."""

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dp_hub.errors import HubError
from dp_hub.hub.cards import (
    GENERATED,
    Source,
    check_license,
    dataset_card,
    license_of,
    with_license,
)
from dp_hub.hub.digests import Known
from dp_hub.hub.kinds import Kind, belongs

log = logging.getLogger(__name__)
README = "README.md"
PROVENANCE = "meta/dp_hub.json"
INFO = "meta/info.json"
CHECKSUMS = "meta/checksums.json"
NOT_AS_WRITTEN = (
    "take the files from a good copy (a pulled folder: dp-hub pull again into it); if they were "
    f"changed on purpose, remove {CHECKSUMS}"
)
Content = Path | bytes


def gather(
    folder: Path,
    kind: Kind,
    repo_id: str,
    remote_readme: str | None,
    *,
    license: str | None,
    ask: Callable[[], str] | None,
) -> dict[str, Content]:
    """What is to be on the Hub: the folder's own files, and a README.md that names the licence.

    Raises:
        HubError: a dataset with no licence or an unreadable meta/info.json.
    """
    contents: dict[str, Content] = {}
    others = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if belongs(name, kind):
            contents[name] = path
        elif not name.startswith((".cache/", ".dp_hub/")):
            others.append(name)
    if others:
        shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
        log.info("%d files that are no part of a %s stay here: %s", len(others), kind, shown)
    text = _utf8(folder / README) if README in contents else None
    if kind == "dataset":
        readme = _dataset_readme(contents, repo_id, text, remote_readme, license, ask)
        contents[README] = readme
    elif license is not None:
        contents[README] = with_license(text or "", check_license(license)).encode()
    return contents


def refuse_unfinished(folder: Path) -> None:
    """Raises HubError: the dataset is still being written."""
    provenance = folder / PROVENANCE
    if _recorded(provenance if provenance.is_file() else None, "state") == "open":
        raise HubError(
            f"{folder} is still being written: it has no checksums and no statistics yet",
            hint=f"dp-hub finish {folder}",
        )


def source_fingerprints(provenance: Content | None) -> set[str]:
    """Fingerprints of the datasets that this one was made from, as meta/dp_hub.json lists them."""
    listed = _provenance(provenance).get("sources")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    return {text for row in rows if (text := _text(row.get("fingerprint"))) is not None}


def sources(provenance: Content | None) -> list[Source]:
    """The datasets that this one was made from, as meta/dp_hub.json lists them.

    Raises:
        HubError: it lists something else.
    """
    listed = _provenance(provenance).get("sources") or []
    try:
        return [
            Source(str(row["name"]), _text(row.get("revision")), _text(row.get("license")))
            for row in listed
        ]
    except (TypeError, KeyError, AttributeError):
        raise HubError(
            f"the sources in {PROVENANCE} must be a list of objects with a name"
        ) from None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def fingerprint(provenance: Content | None) -> str | None:
    """The dataset's content hash that meta/dp_hub.json records; None without one."""
    return _recorded(provenance, "fingerprint")


def refuse_damaged(folder: Path, contents: Mapping[str, Content], send: Iterable[str]) -> None:
    """Refuse to publish files that are not those meta/checksums.json was written for.

    Args:
        folder: the dataset, for the message.
        contents: its files.
        send: paths of those that would be sent; the others equal what is published already.
    Raises:
        HubError: a file differs or is missing, or the checksums themselves can't be read.
    """
    if CHECKSUMS not in contents:
        return
    try:
        listed = json.loads(_bytes(contents[CHECKSUMS]))["files"]
        sums = {str(path): (int(row["bytes"]), str(row["sha256"])) for path, row in listed.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise HubError(f"{folder / CHECKSUMS} is damaged", hint=NOT_AS_WRITTEN) from None
    wrong = [path for path in sums if path not in contents]
    for path in set(send) & sums.keys():
        if not Known(path, sums[path][0], sums[path][1], "").holds(contents[path]):
            wrong.append(path)
    if wrong:
        names = ", ".join(sorted(wrong)[:3]) + (", ..." if len(wrong) > 3 else "")
        raise HubError(
            f"{folder} is not as it was written: {names} not as {CHECKSUMS} says; "
            "nothing was pushed",
            hint=NOT_AS_WRITTEN,
        )


def is_readable(provenance: Path) -> bool:
    """Whether meta/dp_hub.json is there and whole enough to be read."""
    return provenance.is_file() and bool(_provenance(provenance))


def format_version(contents: Mapping[str, Content]) -> str:
    """The version of a dataset's layout, such as ``v3.0``.

    Raises:
        HubError: meta/info.json doesn't say.
    """
    return str(_info(contents[INFO])["codebase_version"])


def _info(content: Content) -> dict[str, Any]:
    try:
        info = json.loads(_bytes(content))
        if re.fullmatch(r"v[0-9]+\.[0-9]+", info["codebase_version"]):
            return dict(info)
    except (ValueError, TypeError, KeyError):
        pass
    raise HubError(f"{INFO} is not a dataset's: it must be JSON with a codebase_version like v3.0")


def _dataset_readme(
    contents: Mapping[str, Content],
    repo_id: str,
    text: str | None,
    remote_text: str | None,
    license: str | None,
    ask: Callable[[], str] | None,
) -> bytes:
    """The README.md to send: the user's, the one written on the Hub, or one made here."""
    info = _info(contents[INFO])
    recorded = _recorded(contents.get(PROVENANCE), "license")
    known = license or license_of(text) or recorded or license_of(remote_text)
    if known is None and ask is not None:
        known = ask()
    if not known:
        raise HubError(
            f"no licence is known for {repo_id}; without one nobody may use the data",
            hint="add --license, for example cc-by-4.0, cc0-1.0 or other",
        )
    check_license(known)
    made_from = sources(contents.get(PROVENANCE))
    _mention_other_licenses(made_from, known)
    # The words of people come first, also those that were written on the Hub over a card of ours.
    for written in (text, remote_text):
        if written is not None and GENERATED not in written:
            return with_license(written, known).encode()
    return dataset_card(repo_id, info, known, made_from).encode()


def _mention_other_licenses(made_from: Sequence[Source], license: str) -> None:
    for source in made_from:
        if source.license is not None and source.license != license:
            log.warning(
                "%s, which this was made from, has the licence %s; this is pushed as %s",
                source.name,
                source.license,
                license,
            )


def _recorded(provenance: Content | None, key: str) -> str | None:
    return _text(_provenance(provenance).get(key))


def _provenance(content: Content | None) -> dict[str, Any]:
    """What meta/dp_hub.json holds; empty without one, or if it is no JSON object."""
    if content is None:
        return {}
    try:
        found = json.loads(_bytes(content))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _utf8(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise HubError(f"{path} is not UTF-8 text: {error.reason}") from None


def _bytes(content: Content) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
