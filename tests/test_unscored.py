"""main.py on a folder without Inception's weights: scored by a classifier if there are classes, else only trained."""

import json

import pytest
import yaml
from helpers import TINY, fails, save_image

from evaluation.inputs import features
from utils.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes."""
    for number, name in enumerate(("light", "dark")):
        for i in range(12):
            save_image(tmp_path / "pictures" / name / f"{i}.png", (200 * number, 10 * i, 0))
    return tmp_path / "pictures"


@pytest.fixture
def no_weights(monkeypatch):
    def absent(given):
        raise UserError("the Inception weights are neither here nor there")

    monkeypatch.setattr(features, "inception_file", absent)


def train(call, pictures, tmp_path, *more):
    data = ["--dataset", "folder", "--data_dir", pictures, "--image_size", 8, "--run_dir", tmp_path / "run"]
    return call("main.py", *TINY, *data, *more)


def test_a_folder_with_classes_is_scored_by_a_classifier_of_them(call, pictures, tmp_path, no_weights):
    done = train(call, pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scores      by a classifier of the folder's own classes" in done.stdout
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["features"] == "classifier"
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["protocol"]["features"] == "classifier"


def test_a_flat_folder_is_trained_and_not_scored_and_that_is_said_first(call, pictures, tmp_path, no_weights):
    for path in list(pictures.glob("*/*.png")):
        path.rename(pictures / f"{path.parent.name}_{path.name}")
    done = train(call, pictures, tmp_path)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.index("this run will not be scored"), done.stdout.index("not scored. python evaluate.py")
    assert first < done.stdout.index("training    ") < last
    assert (tmp_path / "run" / "checkpoints" / "step_000002.pt").exists()
    assert f"worth opening:\n  {tmp_path / 'run' / 'report.html'}" in done.stdout
    done = call("evaluate.py", tmp_path / "run")
    assert done.returncode == 2 and "the Inception weights are neither here nor there" in done.stderr


def test_where_inception_is_asked_for_or_the_data_have_a_name_it_is_needed(call, pictures, tmp_path, no_weights):
    done = train(call, pictures, tmp_path, "--features", "inception")
    assert done.returncode == 2 and "neither here nor there" in done.stderr


def test_scores_against_other_images_and_of_few_samples_are_doubted(call, pictures, tmp_path, no_weights):
    assert train(call, pictures, tmp_path).returncode == 0
    save_image(pictures / "light" / "more.png", "blue")
    done = call("evaluate.py", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "warning: the generator was trained on other images than those that it is compared with" in done.stdout
    assert "100 samples are fewer than the 128 dimensions of the features, so FID is unreliable" in done.stdout


def test_samples_that_are_jpeg_files_are_doubted(call, pictures, tmp_path, no_weights):
    for i in range(12):
        save_image(tmp_path / "samples" / f"{i}.jpg", (20 * i, 0, 0))
    data = ["--dataset", "folder", "--data_dir", pictures, "--image_size", 8, "--features", "classifier"]
    done = call("evaluate.py", "--samples", tmp_path / "samples", *data)
    assert done.returncode == 0, done.stderr
    assert "warning: the samples are JPEG files" in done.stdout


def test_samples_and_runs_are_scored_by_the_classifier_too(call, pictures, tmp_path, no_weights):
    data = ["--dataset", "folder", "--data_dir", pictures, "--image_size", 8]
    assert call("train.py", *TINY, *data, "--run_dir", tmp_path / "run").returncode == 0
    assert call("evaluate.py", tmp_path / "run", "--table", tmp_path / "t.csv").returncode == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 2
    for place in (data, ["--reference", pictures, "--image_size", 8]):
        done = call("evaluate.py", "--samples", pictures, *place)
        assert done.returncode == 0, done.stderr
        assert (
            "by a classifier of the folder's own classes" in done.stdout and "features of the classifier" in done.stdout
        )
    fails(call("evaluate.py", "--samples", pictures, *data, "--features", "inception"), "neither here nor there")


def test_samples_are_not_compared_with_another_data_set_than_was_meant(call, pictures):
    fails(call("evaluate.py", "--samples", pictures, "--data_dir", pictures, "--image_size", 8), "add --dataset folder")


def test_a_reference_of_much_larger_pictures_is_doubted(call, pictures, tmp_path, no_weights):
    for i in range(20):
        save_image(tmp_path / "large" / "ab"[i % 2] / f"{i}.png", (9 * i, 200 - 9 * i, 0), (48, 32))
    done = call(
        "evaluate.py", "--samples", pictures, "--reference", tmp_path / "large", "--image_size", 8, "--channels", 1
    )
    assert done.returncode == 0, done.stderr
    told = "warning: the pictures of --reference, most often 48x32, were reduced to 8x8 in grey"
    assert told in done.stdout
    assert told[9:] in json.loads((tmp_path / "pictures_evaluation.json").read_text())["warnings"]
