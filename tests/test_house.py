"""How the house is built: imports run one way, and nothing is longer than a reader can hold in mind (docs: README)."""

import ast

from helpers import ROOT

# Each may import what stands before it.
ORDER = [
    ("models", "losses", "utils"),
    ("settings",),
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
ROOMS = [*sorted(path.parent.name for path in ROOT.glob("*/__init__.py")), "benchmarks", "tests"]
FILES = sorted([*ROOT.glob("*.py"), *(path for name in ROOMS for path in (ROOT / name).rglob("*.py"))])
MAX_LINES, TRAIN_LINES, MAX_FUNCTION, MAX_ARGUMENTS = 300, 220, 60, 6


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


def test_no_import_runs_back():
    for path in FILES:
        own = room(path)
        for name in {*imported(path)} - {own} if own in LEVELS else ():
            assert LEVELS[name] <= LEVELS[own], f"{path}: {own} imports {name}"
            assert LEVELS[name] < LEVELS[own], f"{path}: {own} imports {name}, which stands beside it"


def test_no_file_and_no_function_is_too_long():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        assert lines <= (TRAIN_LINES if path == ROOT / "train.py" else MAX_LINES), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{path}: {node.name}"


def test_an_update_takes_six_arguments_at_most():
    body = ast.parse((ROOT / "train.py").read_text(encoding="utf-8")).body
    steps = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.endswith("step")]
    assert {node.name for node in steps} >= {"discriminator_step", "generator_step"}
    assert all(len(node.args.args) + len(node.args.kwonlyargs) <= MAX_ARGUMENTS for node in steps)
