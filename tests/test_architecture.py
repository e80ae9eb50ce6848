"""Protects the house: imports point down, without a circle; what travels alone needs nothing of ours; corpora are read without
torch; the files at the top stay short.

    python tests/test_architecture.py

prints the rooms, from the top down, and what each imports.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The rooms, from the bottom up: a file imports from its own room and from rooms of lower floors.
FLOORS = [
    {"glode", "modeling_glode", "errors", "files", "parser", "randomness", "metrics"},
    {"corpora", "fast"},
    {"features"},
    {"denoising"},
    {"training"},
    {"trainer_glode", "serving"},
    {"publishing"},
    {"run"},
    {"run_crossner", "evaluation"},
    {"api"},
    {"command"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# What travels without the package, and what it may import besides Python's own library.
TRAVELLERS = {
    "modeling_glode": {"numpy", "onnxruntime", "torch", "transformers"},
    "glode.serving.handler": {"modeling_glode", "torch", "transformers"},
    "glode.serving.app": {"gradio", "huggingface_hub", "modeling_glode", "safetensors", "transformers"},
}
HEAVY = {"accelerate", "safetensors", "torch", "transformers"}
LINES_AT_MOST = {"run_crossner": 350, "trainer_glode": 350}
LINES_OF_A_FUNCTION = 50  # without its docstring


@cache
def modules() -> dict[str, Path]:
    """The files of the product, by module; programs that make the package's data are no part of it."""
    paths = [path for path in ROOT.glob("glode/**/*.py") if "demo" not in path.parts]
    paths += [ROOT / f"{name}.py" for name in ("modeling_glode", "trainer_glode", "run_crossner")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sorted(paths)}


def room_of(module: str) -> str:
    """`corpora` of glode.corpora.files, `errors` of glode.errors, `glode` of the package's own `__init__`."""
    top, *below = module.split(".")
    return below[0] if top == "glode" and below else top


def statements(nodes: list[ast.stmt], inside: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements of a file; with `inside` also those of its functions. What only a type checker reads is no import
    where the file is the package's `__init__`, whose exports are lazy."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statements([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)], inside)
            handlers = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.ExceptHandler | ast.match_case)]
            yield from (found for handler in handlers for found in statements(handler.body, inside))


def imported_by(module: str, inside: bool = True) -> set[str]:
    """The modules that a module imports: ours by their full names, others by their first."""
    body = ast.parse(modules()[module].read_text(encoding="utf-8")).body
    if module == "glode":
        body = [node for node in body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    found = set()
    for node in statements(body, inside):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            assert not node.level and node.module, f"{module}, line {node.lineno}: name the module in full"
            parts = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found.update(part if part in modules() else node.module for part in parts.values())
            lazy = [name for name, part in parts.items() if part not in modules() and name != "__version__"]
            assert node.module != "glode" or not lazy, f"{module} imports {lazy} from glode: the lazy exports are for users"
    return {name if name in modules() else name.split(".")[0] for name in found} - {module}


@cache
def arrows() -> dict[str, set[str]]:
    """Room -> the rooms that its files import."""
    found = defaultdict(set)
    for module in modules():
        rooms = {room_of(name) for name in imported_by(module) if name in modules()}
        found[room_of(module)] |= rooms - {room_of(module)}
    return dict(found)


def table() -> str:
    """The rooms, from the top down, and what each imports."""
    order = sorted(arrows(), key=lambda room: (-FLOOR_OF[room], room))
    lines = [f"{room:<16} {', '.join(sorted(arrows()[room], key=order.index)) or '-'}" for room in order]
    return "\n".join([f"{'room':<16} imports", *lines])


def test_every_room_has_its_floor():
    assert {room_of(module) for module in modules()} <= set(FLOOR_OF), "a new room: give it a place in FLOORS"


def test_no_arrow_points_up():
    upward = {(room, other) for room, others in arrows().items() for other in others if FLOOR_OF[other] >= FLOOR_OF[room]}
    assert not upward


def test_no_circle_between_files():
    ours = {module: {name for name in imported_by(module) if name in modules()} for module in modules()}
    TopologicalSorter(ours).prepare()  # raises CycleError, which names the circle


def test_the_package_itself_imports_nothing_of_ours():
    assert not {name for name in imported_by("glode") if name in modules()}


@pytest.mark.parametrize("module", TRAVELLERS)
def test_what_travels_alone(module: str):
    assert imported_by(module) - set(sys.stdlib_module_names) <= TRAVELLERS[module]


@pytest.mark.parametrize(
    "module", [name for name in modules() if room_of(name) in ("corpora", "errors", "files", "parser", "command")]
)
def test_light_rooms_import_nothing_heavy(module: str):
    """In a function they may: that is loaded when it is needed."""
    assert not imported_by(module, inside=False) & (HEAVY | {"modeling_glode"})
    if room_of(module) == "corpora":
        assert not imported_by(module) & HEAVY


@pytest.mark.parametrize("module", LINES_AT_MOST)
def test_files_that_are_read_at_one_sitting(module: str):
    lines = modules()[module].read_text(encoding="utf-8").count("\n")
    assert lines <= LINES_AT_MOST[module]


def test_functions_are_short():
    long = {}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                told = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
                long[f"{module}.{node.name}"] = node.end_lineno - node.lineno + 1 - told
    assert not {name: lines for name, lines in long.items() if lines > LINES_OF_A_FUNCTION}


def test_the_check_sees_what_it_is_for(monkeypatch, tmp_path: Path):
    """Imports in functions, branches and handlers count; a lazy export, a relative import do not pass."""
    file = tmp_path / "made_up.py"
    monkeypatch.setitem(modules(), "glode.made_up", file)
    file.write_text(
        "import os.path\ndef f():\n    if 1:\n        import torch\ntry:\n    from glode import errors\n"
        "except ImportError:\n    import numpy\nclass C:\n    import faiss\n"
    )
    assert imported_by("glode.made_up") == {"os", "torch", "glode.errors", "numpy", "faiss"}
    assert imported_by("glode.made_up", inside=False) == {"os", "glode.errors", "numpy", "faiss"}
    file.write_text("from glode import GlodeModel\n")
    with pytest.raises(AssertionError, match="lazy exports are for users"):
        imported_by("glode.made_up")
    file.write_text("from . import errors\n")
    with pytest.raises(AssertionError, match="name the module in full"):
        imported_by("glode.made_up")


if __name__ == "__main__":
    print(table())
