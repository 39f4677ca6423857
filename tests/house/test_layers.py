"""Who may import whom: the table in docs/architecture.md, checked from the imports."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    "errors": 0,
    "config": 0,
    "files": 0,
    "options": 0,
    "processes": 0,
    "replay": 1,
    "models": 1,
    "envs": 1,
    "hub": 1,
    "dataset": 2,
    "sampling": 2,
    "policies": 2,
    "training": 3,
    "rollout": 3,
    "robot": 3,
    "cli": 4,
}
SAME_LAYER = {("sampling", "dataset"), ("envs", "replay")}
HEAVY = {"torch", "datasets", "diffusers", "accelerate", "pyarrow", "zarr", "pygame", "pymunk"}
HEAVY |= {"matplotlib"}


def imported_modules(path: Path, *, module_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if module_level else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(module: str) -> str | None:
    words = module.split(".")
    return words[1] if words[0] == "dp_hub" and len(words) > 1 and words[1] in LAYERS else None


def test_library_imports_only_downward() -> None:
    files = [path for path in (ROOT / "dp_hub").rglob("*.py") if path.parent.name != "dp_hub"]
    assert len(files) >= 30
    seen = set()
    for path in files:
        here = path.relative_to(ROOT / "dp_hub").parts[0]
        seen.add(here)
        for there in {part_of(module) for module in imported_modules(path)} - {None, here}:
            assert there is not None
            allowed = LAYERS[there] < LAYERS[here] or (here, there) in SAME_LAYER
            assert allowed, f"{path.relative_to(ROOT)} ({here}) imports {there}"
    assert seen == set(LAYERS) - {"errors", "config", "files", "options", "processes"}


def test_library_knows_nothing_of_converters_or_recipes() -> None:
    files = list((ROOT / "dp_hub").rglob("*.py"))
    assert len(files) >= 30
    for path in files:
        roots = {module.split(".")[0] for module in imported_modules(path)}
        assert not roots & {"dp_hub_converters", "dp_hub_recipes", "converters", "recipes"}, path


def test_converters_import_episodes_and_errors_only() -> None:
    files = list((ROOT / "converters").rglob("*.py"))
    assert len(files) >= 50
    for path in files:
        parts = {part_of(module) for module in imported_modules(path)} - {None}
        assert parts <= {"replay", "errors"}, path


def test_command_modules_import_nothing_heavy_at_the_top() -> None:
    files = list((ROOT / "dp_hub" / "cli").glob("*.py"))
    assert len(files) >= 9
    for path in files:
        roots = {name.split(".")[0] for name in imported_modules(path, module_level=True)}
        assert not roots & HEAVY, path
