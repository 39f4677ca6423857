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
_PLAIN = {"int": "<int>", "float": "<float>", "bool": "true|false", "str": "<text>"}


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
    return [described(points[name]) for name in sorted(points)]


def install_line(point: EntryPoint) -> str | None:
    """What pip installs for the format, such as ``dp_hub[hdf5]``; None if it names no extra."""
    if not point.extras:
        return None
    package = point.dist.name if point.dist else point.module.partition(".")[0]
    return f"{package}[{','.join(point.extras)}]"


def described(point: EntryPoint) -> Format:
    """What an entry point says of itself and its class's source text of its summary and options."""
    tree = _parsed(point.module)
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    found = next((node for node in classes if node.name == point.attr), None)
    summary, options = ("", ()) if found is None else (_summary(found), _options(found, tree))
    return Format(point.name, summary, options, install_line(point))


def _parsed(module: str) -> ast.Module:
    """A module's source text; empty if it cannot be found or read."""
    spec = _spec(module)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return ast.Module([], [])
    try:
        return ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


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


def _options(node: ast.ClassDef, tree: ast.Module) -> tuple[str, ...]:
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            arguments = [*function.args.args[1:], *function.args.kwonlyargs]
            return tuple(f"{a.arg}={_values(a.annotation, tree)}" for a in arguments)
    return ()


def _values(annotation: ast.expr | None, tree: ast.Module) -> str:
    """``Literal["a", "b"] | None`` as ``a|b``, ``float`` as ``<float>``."""
    if isinstance(annotation, ast.BinOp) and ast.unparse(annotation.right) == "None":
        annotation = annotation.left
    if isinstance(annotation, ast.Name) and annotation.id not in _PLAIN:
        annotation = _meant(annotation.id, tree)
    text = "text" if annotation is None else ast.unparse(annotation)
    literal = re.fullmatch(r"(?:typing\.)?Literal\[(.*)\]", text)
    if literal:
        return "|".join(word.strip().strip("'\"") for word in literal[1].split(","))
    return _PLAIN.get(text, "<text>")


def _meant(name: str, tree: ast.Module, *, follow: bool = True) -> ast.expr | None:
    """What a name stands for: set in the module itself or in the one it is imported from."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            return statement.value
        if isinstance(statement, ast.ImportFrom) and statement.module and follow:
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _meant(alias.name, _parsed(statement.module), follow=False)
    return None
