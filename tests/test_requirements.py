"""The versions that requirements.txt admits: the lock is among them, and the lowest ones work."""

import subprocess
import sys

import pytest
from helpers import ROOT, TINY
from packaging.requirements import Requirement


def requirements(name):
    """{package: Requirement} of a requirements file."""
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {requirement.name.lower(): requirement for requirement in found}


def test_the_locked_versions_are_ones_that_the_requirements_admit():
    wanted, locked = requirements("requirements.txt"), requirements("requirements-lock.txt")
    assert wanted.keys() <= locked.keys()
    for name, requirement in wanted.items():
        (pin,) = locked[name].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), name


@pytest.mark.slow
def test_training_scoring_and_drawing_work_at_exactly_the_lowest_versions(tmp_path):
    pins = [str(requirement).replace(">=", "==") for requirement in requirements("requirements.txt").values()]
    assert all("==" in pin for pin in pins)
    python = tmp_path / "venv" / "bin" / "python"
    commands = [
        [sys.executable, "-m", "venv", tmp_path / "venv"],
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *pins, "pytest"],
        [python, "main.py", *TINY, "--data_dir", tmp_path / "data", "--run_dir", tmp_path / "run"],
        [python, "main.py", "--resume", tmp_path / "run", "--total_steps", 4],
        [python, "evaluate.py", tmp_path / "run", "--audit"],
        [python, "generate.py", tmp_path / "run", "--num", 4, "--out", tmp_path / "out"],
        [python, "-m", "pytest", "tests/models", "tests/losses", "tests/evaluation/scores/test_metrics.py"],
    ]
    for command in commands:
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
