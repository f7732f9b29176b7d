"""evaluate.py as it is used: every checkpoint of a run, other programs' images, any number of processes."""

import contextlib
import csv
import io
import json
import sys
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest
import torch
from evaluation_results import at
from helpers import TINY, fails, random_images, start
from PIL import Image
from torch_fidelity import calculate_metrics

import evaluate
import train
from datasets.sources import load_split
from evaluation.inputs import features, reference
from evaluation.scores import metrics
from settings.config import Config
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import by_run, checkpoint_path, latest, own_stem, stem_of
from utils.errors import UserError
from utils.plots import picture


@pytest.fixture(scope="module")
def evaluated(unscored, data_dir, tmp_path_factory):
    """A copy of the run, scored at every checkpoint under every protocol: (its directory, what was said)."""
    run = Path(copytree(unscored, tmp_path_factory.mktemp("evaluated") / "run"))
    flags = ["--data_dir", data_dir, "--protocol", "modern", "paper", "test"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(sys, "argv", ["evaluate.py", str(run), *flags])
        evaluate.main()
    return run, said.getvalue()


def save_pictures(folder, images, classes=None):
    """Images (N, C, H, W) as files of a folder, or of one folder a class."""
    for i, image in enumerate(images):
        path = folder / (classes[i] if classes else "") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(image).save(path)


def test_a_run_directory_is_scored_at_every_checkpoint_with_json_csv_and_pictures(evaluated):
    run, said = evaluated
    content = json.loads((run / "evaluation.json").read_text())
    order = [(r["protocol"]["step"], r["protocol"]["name"]) for r in content["results"]]
    assert order == [(step, name) for step in (0, 2, 4) for name in ("modern", "paper", "test")]
    assert (content["protocol"]["step"], content["protocol"]["name"]) == (4, "modern")
    assert content["last"]["step"] == 4 and content["best"]["fid"] == min(
        r["fid"] for r in content["results"] if r["protocol"]["name"] == "modern"
    )
    with open(run / "evaluation.csv", newline="") as file:
        assert [float(row["fid"]) for row in csv.DictReader(file)] == [r["fid"] for r in content["results"]]
    for name in ("plots/evaluation_scores.png", "plots/evaluation_neighbours.png"):
        assert f"written to {run / name}" in said
        with Image.open(run / name) as picture:
            assert picture.width > 600
    assert "of 3 checkpoints, the best by FID is step" in said


def test_checkpoints_are_scored_together_with_the_run_they_belong_to(scored):
    run, done = scored(what=at(2, 0))
    assert done.returncode == 0, done.stderr
    content = json.loads((run / "evaluation.json").read_text())
    assert [result["protocol"]["step"] for result in content["results"]] == [0, 2]
    assert (run / "plots" / "evaluation_scores.png").exists()


def test_scores_do_not_depend_on_what_is_scored_beside_them(evaluated, scored):
    together = json.loads((evaluated[0] / "evaluation.json").read_text())["results"][4]
    run, _ = scored("--protocol", "paper", what=at(2))
    alone = json.loads((run / "evaluation.json").read_text())
    assert alone == together | {"checkpoint": str(checkpoint_path(run, 2))}


def test_saved_samples_have_the_same_scores_as_a_folder_or_an_npz(scored, call, data_dir, tmp_path):
    kept = tmp_path / "kept.npz"
    run, done = scored("--save_samples", kept, what=at(4))
    assert done.returncode == 0, done.stderr
    expected = json.loads((run / "evaluation.json").read_text())
    save_pictures(tmp_path / "pictures", torch.from_numpy(np.load(kept)["samples"]).permute(0, 3, 1, 2))
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


class Tensors(torch.utils.data.Dataset):
    """Images as torch_fidelity.calculate_metrics() takes them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def torch_fidelitys_scores(samples, real, weights):
    """What torch-fidelity says of images, by the names in evaluation.json."""
    scores = dict.fromkeys(("isc", "fid", "kid", "prc"), True)
    quick = {"kid_subsets": metrics.KID_SUBSETS, "kid_subset_size": len(samples)}
    quiet = {"cuda": False, "cache": False, "save_cpu_ram": True, "verbose": False}
    inception = {"feature_extractor": "inception-v3-compat", "feature_extractor_weights_path": str(weights)}
    found = calculate_metrics(input1=Tensors(samples), input2=Tensors(real), **scores, **quick, **quiet, **inception)
    return {
        "inception_score": {"mean": found["inception_score_mean"], "std": found["inception_score_std"]},
        "fid": found["frechet_inception_distance"],
        "kid": {
            "mean": found["kernel_inception_distance_mean"],
            "std": found["kernel_inception_distance_std"],
        },
        "precision": found["precision"],
        "recall": found["recall"],
    }


def test_images_are_scored_against_a_folder_without_any_data_set_and_as_torch_fidelity_scores_them(
    call, inception_weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)  # for time
    samples, real = random_images(10, 3, 8, 8).clamp_min(30), random_images(12, 3, 8, 8, seed=1)
    save_pictures(tmp_path / "samples", samples)
    save_pictures(tmp_path / "real", real)
    flags = ["--image_size", 8, "--inception_weights", inception_weights]
    done = call("evaluate.py", "--samples", tmp_path / "samples", "--reference", tmp_path / "real", *flags)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "samples_evaluation.json").read_text())
    protocol = result["protocol"]
    assert (protocol["num_samples"], protocol["num_real"], protocol["features"]) == (10, 12, "inception-v3-compat")
    assert "not the published ones" in protocol["features_warning"] and "not the published ones" in done.stdout
    for name, expected in torch_fidelitys_scores(samples, real, inception_weights).items():
        float32 = {"abs": 1e-6} if name == "kid" else {}  # of its kernels, which are summed to 1 and more
        assert result[name] == pytest.approx(expected, rel=1e-6, **float32)


def test_a_run_is_scored_against_a_folder_in_its_data_sets_place(scored, tmp_path):
    digits = load_split(Config(image_size=8, channels=1))
    save_pictures(tmp_path / "reference", digits.images[:100], [str(label) for label in digits.labels.tolist()])
    run, done = scored("--reference", tmp_path / "reference", what=at(4))
    assert done.returncode == 0, done.stderr
    result = json.loads((run / "evaluation.json").read_text())
    assert (result["protocol"]["dataset"], result["protocol"]["num_real"]) == ("folder", 100)
    assert result["protocol"]["features"] == "classifier"  # of the digits
    assert result["protocol"]["reference"] == str(tmp_path / "reference")
    assert "nearest of the reference images" in done.stdout and "pictures of --reference" not in done.stdout


def test_two_processes_give_exactly_the_scores_of_one(forks, no_pictures, tmp_path):
    def results(run):
        content = json.loads((run / "evaluation.json").read_text())
        return [{key: value for key, value in result.items() if key != "checkpoint"} for result in content["results"]]

    data = tmp_path / "data"  # so few images that a classifier is trained in no time
    for split, count in (("train", 130), ("test", 30)):
        save_pictures(data / split, random_images(count, 1, 8, 8, seed=count), ["a", "b"] * 65)
    settings = {"dataset": "folder", "data_dir": str(data), "image_size": 8, "channels": 1, "features": "classifier"}
    settings |= {"model": "resnet", "ema_decay": 0.0}  # whose samples differ from the first step on
    train.train(start(tmp_path, total_steps=4, save_every=2, **settings))
    found, run = [], tmp_path / "run"
    for ranks in (1, 2):  # both train the classifier and take the real features, on all cores
        body = (
            "import os, evaluate as e; os.environ.pop('OMP_NUM_THREADS', None); e.report.draw = lambda *_: []; e.main()"
        )
        flags = ("--protocol", "modern", "paper", "--num_samples", 300)
        done = forks.run(body, *at(2, 4)(run), *flags, ranks=ranks)
        assert done.codes == [0] * ranks, done.stderr
        assert "training the classifier" in done.stdout
        found.append(results(run))
        (run / "evaluation.json").unlink()
        rmtree(data / ".cache")
    assert found[0] == found[1]
    assert all("fid" in result["held_out"] for result in found[0])  # real test images were scored by both
    scores = [result["inception_score"]["mean"] for result in found[0]]
    assert all(1.1 < score < 1.9 for score in scores)  # of samples that are not all alike
    assert done.stdout.count("best by FID") == 1  # one process speaks


def test_a_second_evaluation_takes_classifier_and_real_features_from_the_cache(evaluated, scored, monkeypatch):
    monkeypatch.setattr(features, "train_classifier", None)
    monkeypatch.setattr(reference, "extract", None)
    _, done = scored(what=at(4))
    assert done.returncode == 0, done.stderr


def test_a_file_that_fails_leaves_the_scores_before_it(scored):
    def damaged_last(run):
        checkpoint_path(run, 4).write_bytes(b"damage")
        return at(0, 2, 4)(run)

    run, done = scored(what=damaged_last)
    fails(done, "step_000004.pt", "is damaged")
    assert json.loads((run / "evaluation.json").read_text())["protocol"]["step"] == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "either run directories or checkpoints, or --samples"),
        (["run", "--samples", "x.npz"], "either run directories or checkpoints, or --samples"),
        (["run", "--dataset", "digits"], "--dataset needs --samples"),
        (["--samples", "x.npz", "--no_ema"], "--samples: leave out --save_samples, --audit and --no_ema"),
        (["--samples", "absent.npz"], "no such folder or file"),
        (["a.pt", "b.pt", "--save_samples", "x.npz"], "--save_samples x.npz takes one run or checkpoint"),
        (["a.pt", "--audit", "--save_samples", "x.npz"], "does not score"),
        (["a.pt", "--save_samples", "x.png"], "must end in .npz"),
        (["a.pt", "--bootstrap", "1"], "at least 2 resamples"),
        (["a.pt", "--reference", "absent"], "--reference absent: no such folder or .zip archive"),
        (["a.pt", "--protocol", "newest"], "--protocol"),
        (["run", "--table", "t.png"], "the name must end in .csv, .md, .tex"),
        (["run", "--table", "absent/t.md"], "absent does not exist"),
        (["run", "--table", "README.md"], "another file is there"),
        (["run", "--table", "t.md", "--audit"], "--table only compares the scores of runs"),
        (["--samples", "x.npz", "--table", "t.md"], "--table only compares the scores of runs"),
        (["absent.pt"], "there is no checkpoint absent.pt"),
        (["tests"], "tests holds no checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_make_no_sense_are_answered_in_words(call, flags, words):
    fails(call("evaluate.py", *flags), words)


def test_the_paper_protocol_needs_test_images_and_says_so_before_training(call, image_folder, tmp_path):
    flags = ["--dataset", "folder", "--data_dir", image_folder, "--features", "classifier", "--protocol", "paper"]
    fails(call("main.py", *TINY, *flags, "--image_size", 8, "--run_dir", tmp_path / "run"), "has no test images")
    assert not (tmp_path / "run").exists()


def test_fid_infinity_says_how_many_samples_it_needs(scored):
    _, done = scored("--fid_infinity")
    fails(done, "FID infinity needs at least 2,560 samples with features of 128 dimensions, not 100")


def test_scores_lie_in_the_run_and_what_is_of_one_checkpoint_has_its_name(tmp_path):
    path = tmp_path / "checkpoints" / "step_000004.pt"
    assert stem_of(path) == tmp_path / "evaluation"
    assert own_stem(path) == tmp_path / "evaluation_step_000004"
    assert own_stem(path, False, "folder", "audit") == tmp_path / "audit_step_000004_no_ema_reference"
    assert stem_of(tmp_path / "G.pt") == tmp_path / "G_evaluation"


def test_exported_generators_are_scored_each_by_itself(unscored, tmp_path):
    groups = by_run([unscored, tmp_path / "a.pt", tmp_path / "b.pt", latest(unscored)])
    assert [len(paths) for paths in groups.values()] == [3, 1, 1]
    long = [tmp_path / "checkpoints" / f"step_{step}.pt" for step in (1000000, 999999)]
    assert by_run(long)[long[0].parent] == long[::-1]
    with pytest.raises(UserError, match="holds no checkpoint"):
        by_run([tmp_path])


def test_no_scores_are_kept_of_a_generator_whose_weights_are_broken(scored):
    def broken(run):
        path = latest(run)
        content = checkpoint.read(path)
        for value in content["ema"].values():
            value.mul_(torch.nan) if value.is_floating_point() else None
        torch.save(content, path)
        return [path]

    run, done = scored(what=broken)
    fails(done, "weights are broken")
    assert not (run / "evaluation.json").exists()
