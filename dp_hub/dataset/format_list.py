"""The installed source formats as a list for people, told without importing any of them.

Name and extra stand in the entry point, summary and options in the source text of the converter's
class, which is parsed, not run. So a format of a third party is listed like one of ours.
"""

import ast
import re
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "dp_hub.converters"


@dataclass(frozen=True)
class Format:
    """What is known of a format before it is loaded.

    Args:
        name: what it is called on the command line.
        summary: the literal ``summary`` of its class, "" if there is none to be read.
        options: ``name=values`` of its own options, as far as the class shows them.
        install: what pip installs for it, such as ``dp_hub[hdf5]``; None if nothing more is needed.
    """

    name: str
    summary: str
    options: tuple[str, ...] = ()
    install: str | None = None


def installed_formats() -> list[Format]:
    """All installed formats by name; imports none of them."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    return [_format(points[name]) for name in sorted(points)]


def install_line(point: EntryPoint) -> str | None:
    """What pip installs for the format, such as ``dp_hub[hdf5]``; None if it names no extra."""
    if not point.extras:
        return None
    package = point.dist.name if point.dist else point.module.partition(".")[0]
    return f"{package}[{','.join(point.extras)}]"


def _format(point: EntryPoint) -> Format:
    found = _class(point)
    summary, options = ("", ()) if found is None else (_summary(found), _options(found))
    return Format(point.name, summary, options, install_line(point))


def _class(point: EntryPoint) -> ast.ClassDef | None:
    spec = _spec(point.module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name == point.attr), None)


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is. Unlike `find_spec` of a dotted name this imports no packages."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    name = top
    for word in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{word}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec


def _summary(node: ast.ClassDef) -> str:
    for statement in node.body:
        if isinstance(statement, ast.Assign):
            names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names = [statement.target.id]
        else:
            continue
        value = statement.value
        if "summary" in names and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return ""


def _options(node: ast.ClassDef) -> tuple[str, ...]:
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            arguments = [*function.args.args[1:], *function.args.kwonlyargs]
            return tuple(f"{a.arg}={_values(a.annotation)}" for a in arguments)
    return ()


def _values(annotation: ast.expr | None) -> str:
    """``Literal["a", "b"] | None`` as ``a|b``, ``float`` as ``<float>``."""
    text = "text" if annotation is None else ast.unparse(annotation)
    text = text.replace(" | None", "")
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", text)
    if literal:
        return "|".join(word.strip().strip("'\"") for word in literal[1].split(","))
    return "true|false" if text == "bool" else f"<{'text' if text == 'str' else text}>"
