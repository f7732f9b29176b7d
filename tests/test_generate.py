"""generate.py: a picture for each seed, the same at any number of them, and what else it writes."""

import numpy as np
import pytest
import torch
from helpers import SMALL, fails
from PIL import Image

import train
from datasets import quantise
from evaluation.inputs.sampling import latents
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


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_exported_generator_and_a_checkpoint_draw_alike(run_dir, call, tmp_path, suffix):
    checkpoint, exported = run_dir / "checkpoints" / "step_000002.pt", tmp_path / f"G{suffix}"
    assert call("generate.py", checkpoint, "--export", exported).returncode == 0
    for name, path in (("a", checkpoint), ("b", exported)):
        assert call("generate.py", path, "--num", 5, "--out", tmp_path / name).returncode == 0
    first, second = pictures(tmp_path / "a"), pictures(tmp_path / "b")
    assert first.keys() == second.keys()
    assert all(np.abs(pixels.astype(int) - second[name]).max() <= 1 for name, pixels in first.items())


def test_a_truncated_image_is_that_of_its_own_seed_alone(run_dir, call, tmp_path):
    for name, flags, near in (("many", ["--num", 8], 0.5), ("few", ["--seeds", 7], 0.5), ("all", ["--seeds", 7], 9)):
        words = ["--truncation", near, *flags, "--out", tmp_path / name]
        assert call("generate.py", run_dir, *words).returncode == 0
    assert call("generate.py", run_dir, "--seeds", 7, "--out", tmp_path / "plain").returncode == 0
    many, few, whole, plain = (pictures(tmp_path / name)["seed000007.png"] for name in ("many", "few", "all", "plain"))
    assert np.array_equal(many, few) and np.array_equal(whole, plain) and not np.array_equal(many, plain)


def test_enlarged_pictures_have_each_pixel_as_a_square(run_dir, call, tmp_path):
    for name, flags in (("large", ["--enlarge", 3]), ("plain", [])):
        assert call("generate.py", run_dir, "--num", 2, "--out", tmp_path / name, *flags).returncode == 0
    large, plain = pictures(tmp_path / "large"), pictures(tmp_path / "plain")
    assert np.array_equal(large["seed000001.png"], np.kron(plain["seed000001.png"], np.ones((3, 3), np.uint8)))
    assert large["grid.png"].shape == (24 + 4, 2 * (24 + 2) + 2)


def test_a_walk_meets_the_images_of_its_seeds(run_dir, call, tmp_path):
    walk = tmp_path / "walk.gif"
    done = call("generate.py", run_dir, "--walk", walk, "--seeds", 5, 9, 2, "--frames", 9, "--enlarge", 1)
    assert done.returncode == 0 and f"{walk}: a walk of 9 frames via 3 images" in done.stdout, done.stderr
    assert call("generate.py", run_dir, "--seeds", 2, 5, 9, "--out", tmp_path / "out").returncode == 0
    images = pictures(tmp_path / "out")
    with Image.open(walk) as gif:
        assert gif.size == (8, 8)
        for frame, seed in ((0, 5), (3, 9), (6, 2)):
            gif.seek(frame)
            shown = np.asarray(gif.convert("L")).astype(int)
            assert np.abs(shown - images[f"seed{seed:06d}.png"]).max() <= 1


@pytest.mark.parametrize(("words", "lines"), [(["--interpolate"], 8), (["--interpolate", 3], 3)])
def test_an_interpolation_has_as_many_lines_as_asked_for(run_dir, call, words, lines):
    done = call("generate.py", run_dir, *words)
    assert done.returncode == 0 and "plots/interpolation" in done.stdout
    with Image.open(done.stdout.strip()) as picture:
        assert picture.size == (10 * 66 + 2, lines * 66 + 2)


def test_an_interpolation_overwrites_none_and_that_of_a_file_is_in_the_working_folder(
    run_dir, call, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    assert call("generate.py", run_dir, "--export", "given/G.safetensors").returncode == 0
    names = [call("generate.py", "given/G.safetensors", "--interpolate", 1).stdout.strip() for _ in range(3)]
    assert names == ["G_interpolation.png", "G_interpolation-2.png", "G_interpolation-3.png"]
    assert [path.name for path in (tmp_path / "given").iterdir()] == ["G.safetensors"]


def test_a_picture_is_never_overwritten(run_dir, call, tmp_path):
    assert call("generate.py", run_dir, "--num", 2, "--out", tmp_path / "out").returncode == 0
    before = pictures(tmp_path / "out")
    (tmp_path / "out" / "grid.png").unlink()
    fails(call("generate.py", run_dir, "--seeds", "1-9", "--out", tmp_path / "out"), "seed000001.png exists", "--out")
    assert len(before) == 3 and len(pictures(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "name an output for the images: --out DIR or --npz FILE.npz"),
        (["--out", "grid.png"], "--out grid.png: name a folder. Its grid.png shows all images"),
        (["--export", "a.pt", "--export", "b.onnx"], "--export is given twice"),
        (["--num", 4], "name an output for the images"),
        (["--num", 0, "--out", "x"], "--num 0: must be at least 1"),
        (["--seeds", "9-3", "--out", "x"], "'9-3' is neither a number such as 7 nor a range such as 0-63"),
        (["--seeds", "0-99999999999", "--out", "x"], "is neither a number"),
        (["--num", 2, "--seeds", 1, "--out", "x"], "not allowed with"),
        (["--num", 2, "--npz", "x.png"], "must end in .npz"),
        (["--num", 2, "--npz", "absent/x.npz"], "absent/x.npz cannot be written: absent does not exist"),
        (["--export", "absent/G.pt"], "absent does not exist"),
        (["--export", "G.bin"], "--export G.bin: the name must end in .pt, .onnx, .safetensors"),
        (["--export", "G.pt", "--uint8"], "--uint8 goes with --export FILE.onnx"),
        (["--truncation", 0, "--out", "x"], "--truncation 0.0: must be at least 0.01"),
        (["--truncation", "nan", "--out", "x"], "--truncation nan: must be at least 0.01"),
        (["--truncation", 1, "--interpolate"], "--truncation needs --out, --npz or --walk"),
        (["--enlarge", 0, "--out", "x"], "--enlarge 0: must be at least 1"),
        (["--interpolate", 0], "--interpolate 0: must be at least 1"),
        (["--frames", 3, "--out", "x"], "--frames needs --walk FILE.gif"),
        (["--walk", "x.png"], "--walk x.png: the name must end in .gif"),
        (["--walk", "absent/x.gif"], "absent does not exist"),
        (["--walk", "x.gif", "--frames", 7], "--frames 7: must be at least 8, one for each image on the way"),
        (["--num", 2, "--out", "/proc/x"], "cannot write into --out /proc/x"),
    ],
)
def test_what_cannot_be_drawn_is_refused(run_dir, call, flags, words):
    fails(call("generate.py", run_dir, *flags), words)


def test_a_folder_without_a_run_is_refused(call, tmp_path):
    fails(call("generate.py", tmp_path, "--num", 2, "--out", tmp_path / "x"), "holds no checkpoint")
