"""What several tests of scoring share."""

from pathlib import Path
from shutil import copytree

import pytest
from evaluation_results import noise_images

from settings.config import Config


@pytest.fixture
def scored(unscored, call, data_dir, tmp_path):
    """Score a copy of the run with flags; returns (the copy, the process)."""

    def scored(*flags, what=lambda run: [run]):
        run = Path(copytree(unscored, tmp_path / "run", dirs_exist_ok=True))
        return run, call("evaluate.py", *what(run), "--data_dir", data_dir, *flags)

    return scored


@pytest.fixture
def folder(tmp_path):
    """Settings of a folder data set without test images, whose training images the tests bring themselves."""
    (tmp_path / "images").mkdir()
    return Config(dataset="folder", data_dir=str(tmp_path / "images"), channels=1, image_size=8)


@pytest.fixture
def folder_with_test(folder, monkeypatch):
    """The same with 40 test images."""
    monkeypatch.setattr("evaluation.inputs.reference.has_test_split", lambda config: True)
    monkeypatch.setattr("evaluation.inputs.reference.load_split", lambda config, split: noise_images(40, seed=9))
    return folder
