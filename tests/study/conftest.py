"""A small study's file, and a run of it."""

import pytest
import yaml
from helpers import SMALL

from study.grid import load_study

CONTENT = {
    "base": {"dataset": "digits", "model": "mlp", "total_steps": 4, "eval_every": 2, "audit_every": 2, **SMALL},
    "methods": ["none", "spectral"],
    "settings": ["A", "C"],
    "seeds": [0, 1],
    "metrics": ["fid"],
    "quick": {"settings": ["C"], "seeds": [0]},
}


@pytest.fixture
def write(tmp_path):
    """Write a study's file, with settings added to its base and keys replaced (None: left out); returns its path."""

    def write(also=None, **changes):
        content = CONTENT | {"base": CONTENT["base"] | (also or {})} | changes
        path = tmp_path / "small.yaml"
        text = yaml.safe_dump({key: value for key, value in content.items() if value is not None})
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(write, tmp_path):
    """One run of a small study, of which nothing exists yet."""
    return load_study(write(), tmp_path / "runs").run("spectral", "C", 0)
