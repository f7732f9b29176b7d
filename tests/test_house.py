"""How the house is built: imports run one way, and nothing is longer than a reader can hold in mind (docs: README)."""

import ast

import pytest
from helpers import ROOT

# Each may import what stands before it. models, losses and utils come first, and models and losses use each other alone.
ORDER = [
    ("models", "losses", "utils"),
    ("datasets",),
    ("evaluation",),
    ("training",),
    ("generate", "train"),
    ("evaluate",),
    ("main",),
    ("study",),
    ("compare",),
]
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if not {".venv", "runs", "data"} & set(path.relative_to(ROOT).parts))
MAX_LINES, MAX_FUNCTION, MAX_ARGUMENTS = 300, 60, 6


def room(path):
    """The wing that a file lies in, or the script that it is."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imported(path):
    """The wings and scripts that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        yield from (name.split(".")[0] for name in names if name.split(".")[0] in LEVELS)


def test_every_wing_and_script_has_its_level():
    rooms = {room(path) for path in FILES} - {"tests", "benchmarks"}
    assert rooms == set(LEVELS)


@pytest.mark.parametrize("path", [path for path in FILES if room(path) in LEVELS], ids=lambda path: path.name)
def test_no_import_runs_back(path):
    own = room(path)
    for name in set(imported(path)) - {own}:
        assert LEVELS[name] <= LEVELS[own], f"{path}: {own} imports {name}"
        assert LEVELS[name] < LEVELS[own] or own == "utils", f"{path}: {own} imports {name}, which stands beside it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_and_no_function_is_too_long(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (220 if path == ROOT / "train.py" else MAX_LINES)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION, node.name


def test_an_update_takes_six_arguments_at_most():
    for node in ast.parse((ROOT / "train.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.endswith("step"):
            assert len(node.args.args) + len(node.args.kwonlyargs) <= MAX_ARGUMENTS
