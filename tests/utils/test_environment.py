"""The environment as users have it: another matplotlib's backend, missing packages, an old Python, an early Ctrl-C."""

import ast
import sys

import pytest
import yaml
from helpers import ROOT, TINY

SCRIPTS = ["main.py", "train.py", "evaluate.py", "generate.py", "compare.py", "plane.py"]
# A script in a folder with a matplotlibrc, where MPLBACKEND and MPLCONFIGDIR are inherited; a study's runs are forks.
INHERITS = """
import os, runpy, sys
from study.jobs import Processes

def script(words):
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")

def forked(self, words, console):
    if (child := os.fork()) == 0:
        try:
            script(words)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert "matplotlib" not in sys.modules
Processes.run = forked
folder, os.environ["MPLBACKEND"], os.environ["MPLCONFIGDIR"], *words = sys.argv[1:]
os.chdir(folder)
script(words)
"""


@pytest.mark.parametrize(
    ("backend", "settings", "scripts"),
    [
        (
            "module://matplotlib_inline.backend_inline",
            b"backend: nonsense\nfigure.figsize: 900, 900\ntext.usetex: True\nfont.size: big",
            SCRIPTS,
        ),
        ("nonsense", b"\xff\xfe\x00", SCRIPTS[:1]),
    ],
)
def test_every_script_draws_whatever_is_said_to_matplotlib(forks, data_dir, tmp_path, backend, settings, scripts):
    (tmp_path / "matplotlibrc").write_bytes(settings)
    run, out, base = tmp_path / "run", tmp_path / "out", dict(zip(TINY[::2], TINY[1::2]))
    base = {name.removeprefix("--"): value for name, value in base.items()} | {"dataset": "digits", "model": "mlp"}
    base |= {"eval_every": 2, "audit_every": 2}
    study = {"base": base, "methods": ["spectral"], "settings": ["C"], "seeds": [0], "metrics": ["fid"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    for words, drawn in (
        (["main.py", *TINY, "--run_dir", run], "run/plots/evaluation_neighbours.png run/plots/curves.png"),
        (["train.py", *TINY, "--run_dir", tmp_path / "other"], "other/plots/curves.png other/report.html"),
        (["evaluate.py", run, "--protocol", "paper"], "run/plots/evaluation_neighbours.png"),
        (["generate.py", run, "--num", 4, "--out", out, "--interpolate", 2], "out/grid.png"),
        (["compare.py", "--config", tmp_path / "study.yaml", "--out", tmp_path / "runs"], "runs/report.html"),
    ):
        if words[0] not in scripts:
            continue
        data = [] if words[0] == "generate.py" else ["--data_dir", data_dir]
        script, *flags = words
        not_writable = tmp_path / "matplotlibrc" / "folder"
        done = forks.run(INHERITS, tmp_path, backend, not_writable, ROOT / script, *flags, *data)
        assert done.returncode == 0 and "could not be made" not in done.stdout, done.stdout + done.stderr
        assert all((tmp_path / name).is_file() for name in drawn.split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_packages_that_are_missing_are_named_in_one_line(run_script, script):
    # -S: without the packages of the environment, though with what a system's Python brings.
    done = run_script(sys.executable, "-S", ROOT / script, "--help")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: not installed: torch, ") and done.stderr.count("\n") == 1
    assert "pip install -r requirements.txt" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_old_python_is_told_before_anything_else(run_script, script):
    # -S: nothing is installed, which would be said next.
    old = f"import runpy, sys; sys.version_info = (3, 10, 4); sys.argv = ['{script}', '--seed', '1']"
    done = run_script(sys.executable, "-S", "-c", f"{old}; runpy.run_path('{script}', run_name='__main__')")
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == (
        f"error: Python 3.11 or newer is needed, but this is 3.10.4 ({sys.executable}). "
        f"Run, for example: python3.11 {script} --seed 1\n"
    )


@pytest.mark.parametrize("file", [*SCRIPTS, "utils/__init__.py"])
def test_an_old_python_and_a_shell_can_read_a_script_as_far_as_they_get(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 8))
    if file in SCRIPTS:  # `sh SCRIPT` ends at the first function, and would run what is in backquotes
        assert not {"`", "$"} & set(text.partition("\ndef ")[0])


# A script in the project's folder which may import a package that swallows every exception.
IMPORTS = """
import signal, sys
sys.modules["__main__"].__file__ = "main.py"
import utils
from utils.errors import run_as_script
def main():
    if sys.argv[1:]:
        sys.path[:0] = sys.argv[1:]
        import swallows
    signal.raise_signal(signal.SIGINT)
run_as_script(main)
"""
SWALLOWS = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except BaseException:
    raise SystemExit("the signal was swallowed")
"""


@pytest.mark.parametrize("during", [True, False])
def test_ctrl_c_ends_a_script_also_while_a_package_is_imported(run_script, tmp_path, during):
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    done = run_script(sys.executable, "-c", IMPORTS, *[tmp_path][:during])
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")
