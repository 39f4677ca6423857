"""``dp-hub inspect``: what was recorded, how regularly, and a mapping file to begin with."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dp_hub.errors import DataError

if TYPE_CHECKING:
    from dp_hub.dataset.inspection.inspecting import Inspection
    from dp_hub.dataset.inspection.stream_facts import StreamFacts


def inspect(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The recordings.")],
    format_name: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="Default: the one that recognises them."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(metavar="OUT.yaml", help="Also write a proposed mapping file there."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the format's own."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="KEY", help="Do not look at a key, or a stream."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show the streams of recordings: type, rate, jitter, gaps, clocks; propose a mapping file."""
    from dp_hub.dataset.conversion.format_options import option_texts
    from dp_hub.dataset.inspection import inspecting as library

    if mapping is not None:
        _refuse(mapping)
    found = library.inspect(
        source, format_name=format_name, options=option_texts(option or []), drop=drop or []
    )
    if mapping is not None:
        if not found.mapping:
            raise DataError(
                f"{source} has nothing that features could be made of, so {mapping} is not written",
                hint="features are of numbers and pictures that come more than once; see without "
                "--mapping what there is",
            )
        _write(mapping, found.mapping)
    if json:
        from json import dumps

        print(dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        again = ["--format", format_name] if format_name else []
        again += [word for text in option or [] for word in ("--option", text)]
        again += [word for key in drop or [] for word in ("--drop", key)]
        print("\n".join([*_text(found), *_next(found, mapping, again)]))


def _refuse(path: Path) -> None:
    if path.exists():
        raise DataError(f"{path} already exists", hint="choose another name, or remove it first")
    if not path.parent.is_dir():
        raise DataError(f"there is no folder {path.parent} to put {path.name} in")


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from None


def _text(found: "Inspection") -> list[str]:
    from dp_hub.dataset.inspection.inspecting import by_install

    what = "episodes" if found.has_rows else "recordings"
    n = found.n_episodes
    counts = [f"some {what}" if n is None else f"{n:,} {what if n != 1 else what[:-1]}"]
    if found.n_frames is not None:
        counts.append(f"{found.n_frames:,} steps")
    if found.has_rows:
        counts.append(f"{found.fps:.4g} Hz ({found.fps_from})" if found.fps else "no rate stated")
    if found.duration_s is not None:
        counts.append(f"{found.duration_s:,.1f} s")
    if not found.has_rows and found.looked_at != found.n_episodes:
        counts.append(f"measured: the first {found.looked_at}")
    notes = [f"note: {note}" for note in found.notes]
    notes += [
        f"not asked: {names}; {line}" for line, names in by_install(found.missing or {}).items()
    ]
    rows = _row_table(found.streams) if found.has_rows else _stream_table(found.streams)
    notes += [f"note: {found.fps_hint}"] if found.fps_hint else []
    return [f"{found.path}: {found.format_name}", ", ".join(counts), "", *rows, "", *notes]


def _row_table(streams: Sequence["StreamFacts"]) -> list[str]:
    head = ("key", "type", "shape", "range", "names")
    return _table(
        [head, *((s.name, s.type_name, _shape(s), _range(s), _names(s)) for s in streams)]
    )


def _stream_table(streams: Sequence["StreamFacts"]) -> list[str]:
    head = ("stream", "kind", "type", "shape", "values", "Hz", "jitter", "longest", "gaps",
            "logged later", "what")  # fmt: skip
    rows = [
        (
            s.name,
            s.kind,
            s.type_name,
            _shape(s),
            f"{s.values:,}",
            f"{s.rate_hz:.4g}" if s.rate_hz else "-",
            _seconds(s.jitter_s),
            _seconds(s.longest_s),
            str(s.gaps) if s.gaps else "-",
            _later(s),
            " ".join(filter(None, (s.about, _range(s), _names(s)))),
        )
        for s in streams
    ]
    return _table([head, *rows])


def _shape(s: "StreamFacts") -> str:
    return "x".join(map(str, s.shape)) or "1"


def _range(s: "StreamFacts") -> str:
    return f"{_number(s.low)}..{_number(s.high)}" if None not in (s.low, s.high) else ""


def _number(value: float | None) -> str:
    value = (value or 0.0) + 0.0  # not -0
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e7 else f"{value:.4g}"


def _names(s: "StreamFacts") -> str:
    shown = ", ".join(s.names[:8])
    return f"({shown}{', ...' if len(s.names) > 8 else ''})" if shown else ""


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _later(s: "StreamFacts") -> str:
    if s.logged_s is None:
        return "-"
    return f"{s.logged_s * 1000:.3g} ms (95 %: {_seconds(s.logged_p95_s)})"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _next(found: "Inspection", mapping: Path | None, again: Sequence[str]) -> list[str]:
    import shlex

    convert = f"dp-hub convert {found.format_name} {found.path}"
    if not found.mapping:
        return []
    own = found.path / "mapping.yaml"
    if mapping is None and own.is_file():
        return [f"next: {convert} --mapping {own} --to DIR   (or with an edited copy)"]
    if mapping is None:
        words = shlex.join(["dp-hub", "inspect", str(found.path), *again])
        return [f"next: {words} --mapping mapping.yaml   (then read through it)"]
    rate = " --fps N" if found.fps_hint else ""
    return [f"next: read through {mapping}, then {convert} --mapping {mapping} --to DIR{rate}"]
