"""evaluate.py as it is used: every checkpoint of a run, other programs' images, any number of processes."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from helpers import SMALL, TINY, fails
from PIL import Image

from datasets.sources import load_split
from training import checkpoint
from training.run_dir import by_run, checkpoint_path, latest, stem_of
from utils.errors import UserError


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, data_dir):
    """A run of digits with checkpoints at the steps 0, 2 and 4, not scored yet."""
    from train import train
    from utils.settings import resolve

    settings = SMALL | {"total_steps": 4, "save_every": 2, "data_dir": data_dir, "device": "cpu"}
    config, _ = resolve(settings | {"run_dir": str(tmp_path_factory.mktemp("runs") / "run")})
    train(config)
    return config.run_dir


@pytest.fixture
def scored(run_dir, call, data_dir, tmp_path):
    """Score a copy of the run with flags; returns (the copy, the process)."""
    from pathlib import Path
    from shutil import copytree

    def scored(*flags, what=lambda run: [run]):
        run = Path(copytree(run_dir, tmp_path / "run", dirs_exist_ok=True))
        return run, call("evaluate.py", *what(run), "--data_dir", data_dir, *flags)

    return scored


def test_a_run_directory_is_scored_at_every_checkpoint_with_json_csv_and_pictures(scored):
    run, done = scored("--protocol", "modern", "test")
    assert done.returncode == 0, done.stderr
    content = json.loads((run / "evaluation.json").read_text())
    order = [(r["protocol"]["step"], r["protocol"]["name"]) for r in content["results"]]
    assert order == [(step, name) for step in (0, 2, 4) for name in ("modern", "test")]
    assert (content["protocol"]["step"], content["protocol"]["name"]) == (4, "modern")
    assert content["last"]["step"] == 4 and content["best"]["fid"] == min(
        r["fid"] for r in content["results"] if r["protocol"]["name"] == "modern"
    )
    with open(run / "evaluation.csv", newline="") as file:
        assert [float(row["fid"]) for row in csv.DictReader(file)] == [r["fid"] for r in content["results"]]
    for name in ("plots/evaluation_scores.png", "plots/evaluation_neighbours.png"):
        assert f"written to {run / name}" in done.stdout
        with Image.open(run / name) as picture:
            assert picture.width > 600
    assert "of 3, the best by FID is step" in done.stdout


def test_checkpoints_are_scored_together_with_the_run_they_belong_to(scored):
    steps = [f"checkpoints/step_{step:06d}.pt" for step in (2, 0)]
    run, done = scored(what=lambda run: [run / name for name in steps])
    assert done.returncode == 0, done.stderr
    assert not (run / "evaluation.json").exists()  # that is of the last checkpoint
    content = json.loads((run / "evaluation_step_000002.json").read_text())
    assert [result["protocol"]["step"] for result in content["results"]] == [0, 2]
    assert (run / "plots" / "evaluation_step_000002_scores.png").exists()


def test_scores_do_not_depend_on_what_is_scored_beside_them(scored):
    run, _ = scored("--protocol", "modern", "paper")
    together = json.loads((run / "evaluation.json").read_text())["results"]
    run, _ = scored("--protocol", "paper", what=lambda run: [run / "checkpoints" / "step_000002.pt"])
    assert json.loads((run / "evaluation_step_000002.json").read_text()) == together[3]


def test_saved_samples_have_the_same_scores_as_a_folder_or_an_npz(scored, call, data_dir, tmp_path):
    kept = tmp_path / "kept.npz"
    run, done = scored("--save_samples", kept, what=lambda run: [run / "checkpoints" / "step_000004.pt"])
    assert done.returncode == 0, done.stderr
    expected = json.loads((run / "evaluation.json").read_text())
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(np.load(kept)["samples"]):
        Image.fromarray(image[:, :, 0]).save(tmp_path / "pictures" / f"{i:03d}.png")
    for path, name in ((kept, "kept"), (tmp_path / "pictures", "pictures")):
        done = call("evaluate.py", "--samples", path, "--dataset", "digits", "--data_dir", data_dir)
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / f"{name}_evaluation.json").read_text())
        for key in ("inception_score", "fid", "kid", "precision", "recall", "class_share"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6)
        assert found["protocol"]["step"] is None and found["protocol"]["samples"] == str(path)
        assert "given as uint8" in found["protocol"]["quantisation"]
        assert "samples as given" in done.stdout
        assert (tmp_path / f"{name}_evaluation_neighbours.png").exists()


def test_images_are_scored_against_a_folder_without_any_data_set(call, image_folder, inception_weights, tmp_path):
    (image_folder / "dark").rename(tmp_path / "samples")
    for path in [*(tmp_path / "samples").iterdir(), *image_folder.glob("*/*")]:
        Image.open(path).crop((0, 0, 32, 32)).save(path)
    flags = ["--image_size", 32, "--inception_weights", inception_weights]
    done = call("evaluate.py", "--samples", tmp_path / "samples", "--reference", image_folder, *flags)
    assert done.returncode == 0, done.stderr
    protocol = json.loads((tmp_path / "samples_evaluation.json").read_text())["protocol"]
    assert (protocol["num_samples"], protocol["num_real"], protocol["features"]) == (20, 20, "inception-v3-compat")
    assert "not the published ones" in protocol["features_warning"] and "not the published ones" in done.stdout


def test_a_run_is_scored_against_a_folder_in_its_data_sets_place(scored, tmp_path):
    digits = load_split(data_config())
    for i in range(100):
        folder = tmp_path / "reference" / str(digits.labels[i].item())
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.images[i, 0].numpy()).save(folder / f"{i}.png")
    run, done = scored("--reference", tmp_path / "reference", what=lambda run: [run / "checkpoints/step_000004.pt"])
    assert done.returncode == 0, done.stderr
    assert not (run / "evaluation.json").exists()  # that is against the data set
    result = json.loads((run / "evaluation_step_000004_reference.json").read_text())
    assert (result["protocol"]["dataset"], result["protocol"]["num_real"]) == ("folder", 100)
    assert result["protocol"]["features"] == "classifier"  # of the digits
    assert result["protocol"]["reference"] == str(tmp_path / "reference")
    assert "nearest of the reference images" in done.stdout


def data_config():
    from utils.config import Config

    return Config(image_size=8, channels=1)


def test_two_processes_give_exactly_the_scores_of_one(run_dir, run_script, tmp_path, monkeypatch):
    def results(run):
        content = json.loads((run / "evaluation.json").read_text())
        return [{key: value for key, value in result.items() if key != "checkpoint"} for result in content["results"]]

    def paths(run):
        return [run / "checkpoints" / f"step_{step:06d}.pt" for step in (2, 4)]

    flags = ["--protocol", "modern", "paper", "--num_samples", 300]
    run = shutil.copytree(run_dir, tmp_path / "run")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "--standalone", "evaluate.py"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # one process takes all cores, as it does for a user
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # and waits for others' work on them without taking them
    found = []
    for command in (["evaluate.py"], torchrun):  # empty caches: both train the classifier and take the real features
        done = run_script(*command, *paths(run), "--data_dir", tmp_path / f"empty{len(found)}", *flags)
        assert done.returncode == 0, done.stderr
        found.append(results(run))
        (run / "evaluation.json").unlink()
    assert found[0] == found[1]
    assert done.stdout.count("best by FID") == 1  # one process speaks


def test_a_second_evaluation_takes_classifier_and_real_features_from_the_cache(scored, monkeypatch):
    scored()
    from evaluation import features, reference

    monkeypatch.setattr(features, "train_classifier", None)
    monkeypatch.setattr(reference, "extract", None)
    _, done = scored()
    assert done.returncode == 0, done.stderr


def test_a_file_that_fails_leaves_the_scores_before_it(scored):
    def damaged_last(run):
        (run / "checkpoints" / "step_000004.pt").write_bytes(b"damage")
        return [run / "checkpoints" / f"step_{step:06d}.pt" for step in (0, 2, 4)]

    run, done = scored(what=damaged_last)
    fails(done, "step_000004.pt", "is damaged")
    assert json.loads((run / "evaluation.json").read_text())["protocol"]["step"] == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "either a run directory or checkpoints, or --samples"),
        (["run", "--samples", "x.npz"], "either a run directory or checkpoints, or --samples"),
        (["run", "--dataset", "digits"], "--dataset goes with --samples"),
        (["--samples", "x.npz", "--no_ema"], "--samples are scored, and nothing else"),
        (["--samples", "absent.npz"], "there is no such folder or file"),
        (["a.pt", "b.pt", "--export", "G.pt"], "G.pt holds one generator's output"),
        (["a.pt", "--export", "G.pt", "--save_samples", "x.npz"], "do not score"),
        (["a.pt", "--save_samples", "x.png"], "must end in .npz"),
        (["a.pt", "--bootstrap", "1"], "2 resamples or more"),
        (["a.pt", "--reference", "absent"], "--reference absent is no folder"),
        (["a.pt", "--protocol", "newest"], "--protocol"),
        (["absent.pt"], "there is no checkpoint absent.pt"),
        (["tests"], "tests holds no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_are_answered_in_words(call, flags, words):
    fails(call("evaluate.py", *flags), words)


def test_the_paper_protocol_needs_test_images_and_says_so_before_training(call, image_folder, tmp_path):
    flags = ["--dataset", "folder", "--data_dir", image_folder, "--features", "classifier", "--protocol", "paper"]
    fails(call("main.py", *TINY, *flags, "--run_dir", tmp_path / "run"), "has no test images")
    assert not (tmp_path / "run").exists()


def test_fid_infinity_says_how_many_samples_it_needs(scored):
    _, done = scored("--fid_infinity")
    fails(done, "FID infinity needs 2,560 samples or more with features of 128 dimensions, not 100")


def test_the_name_of_an_evaluation_says_what_it_is_of(run_dir, tmp_path):
    first, last = (checkpoint_path(run_dir, step) for step in (0, 4))
    folder = last.parent.parent
    assert stem_of([first, last]) == folder / "evaluation"
    assert stem_of([first]) == folder / "evaluation_step_000000"
    assert stem_of([last], reference="folder") == folder / "evaluation_step_000004_reference"
    assert stem_of([last], ema=False) == folder / "evaluation_step_000004_no_ema"
    assert stem_of([tmp_path / "G.pt"]) == tmp_path / "G_evaluation"


def test_exported_generators_are_scored_each_by_itself(run_dir, tmp_path):
    groups = by_run([run_dir, tmp_path / "a.pt", tmp_path / "b.pt", latest(run_dir)])
    assert [len(paths) for paths in groups.values()] == [3, 1, 1]
    long = [tmp_path / "checkpoints" / f"step_{step}.pt" for step in (1000000, 999999)]
    assert by_run(long)[long[0].parent] == long[::-1]
    with pytest.raises(UserError, match="holds no checkpoint"):
        by_run([tmp_path])


def test_no_scores_are_kept_of_a_generator_whose_weights_are_broken(scored):
    def broken(run):
        path = latest(run)
        content = checkpoint.load(path)
        for value in content["ema"].values():
            value.mul_(torch.nan) if value.is_floating_point() else None
        torch.save(content, path)
        return [path]

    run, done = scored(what=broken)
    fails(done, "weights are broken")
    assert not (run / "evaluation.json").exists()
