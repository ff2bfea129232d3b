"""The house: imports go downward only, and heavy packages are loaded where they are used."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import ROOT

# DESIGN.md's levels. Within a level imports may go one way.
LEVELS = {
    "common": 0,
    "config": 1, "metrics": 1, "plots": 1,
    "audio": 2, "models": 2,
    "utils": 3, "corpora": 3,
    "data_utils": 4, "scoring": 4,
    "training": 5, "webpage": 5,
    "main": 6, "resume_training": 6, "monitor_training": 6, "evaluation": 6, "comprehensive_eval": 6, "inference": 6,
    "gradio_app": 6, "export": 6, "demo_corpus": 6, "make_corpus": 6,
}  # fmt: skip
LIBRARIES = {"utils", "data_utils"}  # commands that packages may import
HEAVY = {
    "av",
    "gradio",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyworld",
    "sklearn",
    "tensorboard",
    "transformers",
}


def rooms() -> dict[str, list[Path]]:
    """The files of each room: a package, or a command at the root."""
    packages = {path.parent.name: sorted(path.parent.glob("*.py")) for path in ROOT.glob("*/__init__.py")}
    return packages | {path.stem: [path] for path in ROOT.glob("*.py")}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, `package.module.name` for `from package.module import name`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join([path.parent.name] * bool(node.level) + [node.module] * bool(node.module))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def arrows() -> set[tuple[str, str]]:
    """(room, room that it imports)."""
    return {
        (room, name.split(".")[0])
        for room, files in rooms().items()
        for path in files
        for name in imports(path)
        if name.split(".")[0] in LEVELS.keys() - {room}
    }


def module_of(name: str, modules: set[str]) -> str | None:
    """The module that an imported dotted name stands for or comes from, if it is ours."""
    parents = [".".join(name.split(".")[:length]) for length in (3, 2, 1)]
    return next((parent for parent in parents if parent in modules), None)


def test_every_room_has_a_level():
    assert rooms().keys() == LEVELS.keys()


def test_imports_go_downward():
    upward = [f"{room} → {other}" for room, other in arrows() if LEVELS[other] > LEVELS[room]]
    assert not upward


def test_no_package_imports_a_command():
    packages = {room for room, files in rooms().items() if files[0].parent != ROOT}
    commands = LEVELS.keys() - packages - LIBRARIES
    assert not [f"{room} → {other}" for room, other in arrows() if room in packages | LIBRARIES and other in commands]


def test_rooms_and_modules_import_in_no_circle():
    files = {f"{p.parent.name}.{p.stem}" if p.parent != ROOT else p.stem: p for own in rooms().values() for p in own}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {
        name: {module_of(other, set(modules)) for other in imports(path)} - {None, name}
        for name, path in modules.items()
    }
    TopologicalSorter(graph).prepare()
    between = arrows()
    TopologicalSorter({room: {other for a, other in between if a == room} for room in LEVELS}).prepare()


def test_heavy_packages_load_late():
    code = "import sys, main, evaluation, plots.scores; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}
