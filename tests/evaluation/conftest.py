"""What several tests of scoring share."""

from pathlib import Path
from shutil import copytree

import pytest


@pytest.fixture
def scored(unscored, call, data_dir, tmp_path):
    """Score a copy of the run with flags; returns (the copy, the process)."""

    def scored(*flags, what=lambda run: [run]):
        run = Path(copytree(unscored, tmp_path / "run", dirs_exist_ok=True))
        return run, call("evaluate.py", *what(run), "--data_dir", data_dir, *flags)

    return scored
