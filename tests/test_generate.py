"""generate.py: a picture for each seed, the same at any number of them, and what else it writes."""

import numpy as np
import pytest
import torch
from helpers import SMALL, fails
from PIL import Image

import train
from datasets import quantise
from evaluation.sampling import latents
from training import load_generator, prepare


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of two steps of the digits ResNet, spectral norm in G too."""
    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    train.train(prepare({**SMALL, "model": "resnet", "g_sn": True, "total_steps": 2, "run_dir": str(run_dir)}))
    return run_dir


def pictures(folder):
    """{name: pixels} of a folder's PNGs."""
    return {path.name: np.asarray(Image.open(path)) for path in folder.glob("*.png")}


def test_each_seed_has_its_image_whatever_else_is_drawn(run_dir, call, tmp_path):
    many, few, kept = tmp_path / "many", tmp_path / "few", tmp_path / "kept.npz"
    done = call("generate.py", run_dir, "--num", 70, "--out", many, "--npz", kept)
    assert done.returncode == 0 and f"70 images are in {many}" in done.stdout, done.stderr
    assert call("generate.py", run_dir, "--seeds", 69, "3-5", 0, "--out", few).returncode == 0
    every, some = pictures(many), pictures(few)
    assert set(some) == {"grid.png", *(f"seed{seed:06d}.png" for seed in (0, 3, 4, 5, 69))}
    assert len(every) == 71 and every["grid.png"].shape == (530, 596)  # 8 rows of 9: cells of 64 + 2 pixels, and a gap
    assert all(np.array_equal(every[name], pixels) for name, pixels in some.items() if name != "grid.png")
    samples = np.load(kept)["samples"]
    assert samples.shape == (70, 8, 8, 1) and np.array_equal(samples[69, :, :, 0], every["seed000069.png"])
    G = load_generator(run_dir)
    expected = quantise(G(torch.cat([latents(0, seed, 1, G.z_dim) for seed in range(70)])))[:, 0].numpy()
    assert np.abs(samples[:, :, :, 0].astype(int) - expected).max() <= 1  # that generator is folded, and rounds anew


def test_the_images_are_those_that_evaluate_scores(run_dir, call, tmp_path, data_dir):
    for command in (
        ["evaluate.py", run_dir / "checkpoints" / "step_000002.pt", "--save_samples", tmp_path / "scored.npz"],
        ["generate.py", run_dir, "--num", 100, "--npz", tmp_path / "drawn.npz"],
    ):
        done = call(*command, *(["--data_dir", data_dir] if command[0] == "evaluate.py" else []))
        assert done.returncode == 0, done.stderr
    assert np.array_equal(*(np.load(tmp_path / name)["samples"] for name in ("scored.npz", "drawn.npz")))


def test_an_exported_generator_and_a_checkpoint_draw_alike(run_dir, call, tmp_path):
    checkpoint, exported = run_dir / "checkpoints" / "step_000002.pt", tmp_path / "G.pt"
    assert call("generate.py", checkpoint, "--export", exported).returncode == 0
    for name, path in (("a", checkpoint), ("b", exported)):
        assert call("generate.py", path, "--num", 5, "--out", tmp_path / name).returncode == 0
    first, second = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(np.abs(pixels.astype(int) - second[name]).max() <= 1 for name, pixels in first.items())


def test_a_picture_is_never_overwritten(run_dir, call, tmp_path):
    assert call("generate.py", run_dir, "--num", 2, "--out", tmp_path / "out").returncode == 0
    before = pictures(tmp_path / "out")
    (tmp_path / "out" / "grid.png").unlink()
    fails(call("generate.py", run_dir, "--seeds", "1-9", "--out", tmp_path / "out"), "seed000001.png exists", "--out")
    assert len(before) == 3 and len(pictures(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "say where the images go: --out DIR or --npz FILE.npz"),
        (["--num", 4], "say where the images go"),
        (["--num", 0, "--out", "x"], "--num 0: at least 1"),
        (["--seeds", "9-3", "--out", "x"], "'9-3' is neither a seed such as 7 nor a range such as 0-63"),
        (["--seeds", "0-99999999999", "--out", "x"], "is neither a seed"),
        (["--num", 2, "--seeds", 1, "--out", "x"], "not allowed with"),
        (["--num", 2, "--npz", "x.png"], "must end in .npz"),
        (["--num", 2, "--npz", "absent/x.npz"], "absent/x.npz cannot be written: absent is not a folder"),
        (["--export", "absent/G.pt"], "absent is not a folder"),
        (["--num", 2, "--out", "/proc/x"], "--out /proc/x cannot be made"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run_dir, call, flags, words):
    fails(call("generate.py", run_dir, *flags), words)


def test_a_folder_without_a_run_is_refused(call, tmp_path):
    fails(call("generate.py", tmp_path, "--num", 2, "--out", tmp_path / "x"), "holds no checkpoint")
