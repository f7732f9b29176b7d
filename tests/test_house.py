"""How the house is built: imports run one way, and nothing is longer than a reader can hold in mind (docs: README)."""

import ast
import functools

import pytest
from helpers import ROOT

# Each may import what stands before it.
ORDER = [
    ("models", "losses", "utils"),
    ("settings",),
    ("datasets",),
    ("evaluation",),
    ("training",),
    ("generate", "train"),
    ("evaluate", "plane"),
    ("main",),
    ("study",),
    ("compare",),
]
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
ROOMS = [*sorted(path.parent.name for path in ROOT.glob("*/__init__.py")), "benchmarks", "tests"]
FILES = sorted([*ROOT.glob("*.py"), *(path for name in ROOMS for path in (ROOT / name).rglob("*.py"))])
HOUSE = [path for path in FILES if path.relative_to(ROOT).parts[0] not in ("tests", "benchmarks")]
MAX_LINES, TRAIN_LINES, MAX_FUNCTION, MAX_ARGUMENTS = 300, 220, 60, 6
CEILING = 14_010  # lines outside tests and benchmarks: raised only by a commit that says why


def module_of(path):
    """The dotted name of a file, in which a package's is that of its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in HOUSE}
parsed = functools.cache(ast.parse)


def imported(path, text=None):
    """The modules of the project that a file imports anywhere in it, in functions and under TYPE_CHECKING too.

    text: what would stand in the file.
    """
    package = module_of(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(parsed(path.read_text(encoding="utf-8") if text is None else text)):
        names = []
        if isinstance(node, ast.Import):
            names = [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [(f"{base}.{alias.name}", base) for alias in node.names]
        yield from (next(filter(MODULES.__contains__, name)) for name in names if MODULES.keys() & set(name))


def misplaced(path, text=None):
    """The imports of a file that run back, or to what stands beside its own wing."""
    own = module_of(path).split(".")[0]
    others = {name.split(".")[0] for name in imported(path, text)} - {own}
    return sorted(name for name in others if LEVELS[name] >= LEVELS[own])


def cycles(imports):
    """The sets of modules that reach each other, where imports is {module: modules that it imports}."""

    def reached(start):
        found, waiting = set(), [start]
        while waiting:
            new = set(imports.get(waiting.pop(), ())) - found
            found |= new
            waiting += new
        return found

    reach = {name: reached(name) for name in imports}
    return {
        frozenset(other for other in reach[name] if name in reach[other]) for name in imports if name in reach[name]
    }


def test_every_wing_and_script_has_its_level():
    assert {module_of(path).split(".")[0] for path in HOUSE} == set(LEVELS)
    assert LEVELS["utils"] < LEVELS["settings"] < LEVELS["datasets"]


def test_no_import_runs_back():
    assert {path: found for path in HOUSE if (found := misplaced(path))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "from training import run",
        "import training.run",
        "def later():\n    from training.run import Run",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from training.run import Run",
        "from ..training import run",
    ],
)
def test_an_import_that_runs_back_is_refused_wherever_it_stands(text):
    assert misplaced(ROOT / "evaluation" / "made.py", text) == ["training"]
    assert misplaced(ROOT / "main.py", text.replace("..", "")) == []


def test_no_files_import_each_other():
    found = cycles({name: set(imported(path)) - {name} for name, path in MODULES.items()})
    assert found == set()


def test_a_cycle_is_found_by_the_files_in_it():
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a", "f"}, "f": {"e"}}
    assert cycles(imports) == {frozenset("bc"), frozenset("ef")}
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .config import Config"
    assert list(imported(ROOT / "settings" / "layers.py", text)) == ["settings.config"]


def test_settings_need_no_networks_before_a_configuration_is_made():
    for path in (ROOT / "settings").glob("*.py"):
        outside = [node for node in parsed(path.read_text(encoding="utf-8")).body if not hasattr(node, "body")]
        text = "\n".join(map(ast.unparse, outside))
        assert {name.split(".")[0] for name in imported(path, text)} <= {"settings", "utils"}
        assert "import torch" not in text


def test_matplotlib_is_imported_in_one_place_which_chooses_its_backend_first():
    for path in FILES:
        for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "matplotlib" for name in names), f"{path}: use utils.plots.pyplot()"


def test_no_file_and_no_function_is_too_long():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        assert lines <= (TRAIN_LINES if path == ROOT / "train.py" else MAX_LINES), path
        for node in ast.walk(parsed(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f"{path}: {node.name}"


def test_the_house_does_not_grow_unnoticed():
    assert sum(path.read_text(encoding="utf-8").count("\n") for path in HOUSE) <= CEILING


def test_an_update_takes_six_arguments_at_most():
    body = parsed((ROOT / "train.py").read_text(encoding="utf-8")).body
    steps = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.endswith("step")]
    assert {node.name for node in steps} >= {"discriminator_step", "generator_step"}
    assert all(len(node.args.args) + len(node.args.kwonlyargs) <= MAX_ARGUMENTS for node in steps)
