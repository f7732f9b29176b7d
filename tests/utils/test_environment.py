"""The environment as users have it: another matplotlib's backend, packages that are missing."""

import sys

import pytest
from helpers import ROOT


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend", "QtAgg"])
def test_pictures_do_not_depend_on_an_inherited_backend(forks, tmp_path, backend):
    body = """
import os, sys
from utils.plots import pyplot
assert "matplotlib" not in sys.modules  # which reads the variable when it is imported
os.environ["MPLBACKEND"] = sys.argv[2]
pyplot().figure().savefig(sys.argv[1])
"""
    done = forks.run(body, tmp_path / "a.png", backend)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("script", ["main.py", "train.py", "evaluate.py", "generate.py", "compare.py"])
def test_packages_that_are_missing_are_named_in_one_line(run_script, script):
    # -S: without the packages of the environment, though with what a system's Python brings.
    done = run_script(sys.executable, "-S", ROOT / script, "--help")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: not installed: torch, ") and done.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in done.stderr
