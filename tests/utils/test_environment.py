"""The environment as users have it: another matplotlib's backend, packages that are missing."""

import sys

import pytest
from helpers import ROOT


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend", "QtAgg"])
def test_pictures_do_not_depend_on_an_inherited_backend(run_script, monkeypatch, tmp_path, backend):
    monkeypatch.setenv("MPLBACKEND", backend)
    body = "import sys; from utils.plots import pyplot; p = pyplot(); p.figure().savefig(sys.argv[1])"
    done = run_script(sys.executable, "-c", body, tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").is_file()


@pytest.mark.parametrize("script", ["main.py", "train.py", "evaluate.py", "generate.py", "compare.py"])
def test_packages_that_are_missing_are_named_in_one_line(run_script, script):
    # -S: without the packages of the environment, though with what a system's Python brings.
    done = run_script(sys.executable, "-S", ROOT / script, "--help")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: not installed: torch, ") and done.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in done.stderr
