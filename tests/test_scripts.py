"""Every script started as a user starts it, and every bad input answered as a user reads it."""

import json
import pickle
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, TINY, fails
from PIL import Image

from datasets.images import quantise
from settings.config import FIELDS
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import latest


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory, data_dir):
    """A run of `python main.py` on digits in miniature: (its directory, what it printed)."""
    run_dir = tmp_path_factory.mktemp("runs") / "digits"
    command = [sys.executable, "main.py", *map(str, TINY), "--g_sn", "--data_dir", data_dir, "--run_dir", str(run_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return run_dir, done.stdout


# ---- What works ----------------------------------------------------------------------------------------------------


def test_main_trains_scores_and_names_the_files_worth_opening(digits_run):
    run_dir, printed = digits_run
    assert "configs/digits_dcgan.yaml" in printed and "test accuracy 9" in printed and "IS " in printed
    opened = printed.split("worth opening:")[1].split()
    assert opened == [
        str(run_dir / name)
        for name in (
            *("report.html", "samples/step_000002.png", "plots/samples.gif", "plots/curves.png"),
            *("evaluation.json", "evaluation.csv", "plots/evaluation_neighbours.png"),
        )
    ]
    result = json.loads((run_dir / "evaluation.json").read_text())
    assert result["inception_score"]["mean"] > 0.999 and result["fid"] > 0
    assert sum(result["class_share"].values()) == pytest.approx(1)
    assert result["protocol"]["features"] == "classifier" and result["protocol"]["num_samples"] == 100
    with Image.open(run_dir / "samples" / "step_000002.png") as grid:
        assert grid.size == (662, 662)  # 10 x 10 digits, each enlarged from 8 to 64 pixels


def test_evaluate_keeps_the_scored_images(digits_run, call, data_dir, tmp_path):
    run_dir, _ = digits_run
    kept = tmp_path / "samples.npz"
    done = call("evaluate.py", run_dir, "--data_dir", data_dir, "--save_samples", kept, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"100 scored images of {latest(run_dir)} are in {kept}" in done.stdout
    samples = np.load(kept, allow_pickle=False)["samples"]
    assert samples.dtype == np.uint8 and samples.shape == (100, 8, 8, 1)
    path = latest(run_dir)
    again = call("evaluate.py", path, "--data_dir", data_dir, "--no_ema")
    assert again.returncode == 0 and "drawn from G at step 2" in again.stdout


def test_runs_with_other_latents_are_scored_together_and_keep_their_own_files(digits_run, call, data_dir, tmp_path):
    run_dir, _ = digits_run
    other = tmp_path / "other"
    done = call("train.py", *TINY, "--z_dim", 5, "--run_dir", other, "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    before = json.loads((run_dir / "evaluation.json").read_text())
    first = run_dir / "checkpoints" / "step_000000.pt"
    done = call("evaluate.py", first, other, "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    content = json.loads((run_dir / "evaluation.json").read_text())
    assert {name: content[name] for name in before if name not in ("results", "best", "last")} == {
        name: value for name, value in before.items() if name not in ("results", "best", "last")
    }
    assert content["results"][0]["protocol"]["step"] == 0
    assert json.loads((other / "evaluation.json").read_text())["protocol"]["step"] == 2
    assert f"differences between the runs:\n  z_dim: 8 ({run_dir}), 5 ({other})\n" in done.stdout


def test_an_exported_generator_gives_the_same_images_and_can_be_scored(digits_run, call, data_dir, tmp_path):
    run_dir, _ = digits_run
    exported = tmp_path / "G.pt"
    assert call("generate.py", run_dir, "--export", exported).returncode == 0
    z = torch.randn(7, 8)
    original = checkpoint.load_generator(latest(run_dir))
    folded = checkpoint.load_generator(exported)
    assert not any("parametrizations" in name for name in folded.state_dict())
    assert any("parametrizations" in name for name in original.state_dict())
    scored = call("evaluate.py", exported, "--data_dir", data_dir)
    assert scored.returncode == 0 and (tmp_path / "G_evaluation.json").exists(), scored.stderr
    assert torch.allclose(original(z), folded(z), rtol=0, atol=1e-6)


def test_interpolations_start_at_one_latent_and_end_at_another(digits_run, forks):
    run_dir, _ = digits_run
    done = forks.run("generate.py", run_dir, "--interpolate", "--seed", 5)
    assert done.stdout.split() == [str(run_dir / "plots" / "interpolation.png")]
    G = checkpoint.load_generator(latest(run_dir))
    ends = torch.randn(2, 8, 1, 8, generator=torch.Generator().manual_seed(5)).squeeze(2)
    picture = np.asarray(Image.open(run_dir / "plots" / "interpolation.png"))
    cell = 64 + 2
    for column, z in ((0, ends[0]), (9, ends[1])):
        expected = quantise(G(z))[:, 0]
        for row in range(8):
            shown = picture[2 + row * cell : 66 + row * cell : 8, 2 + column * cell : 66 + column * cell : 8]
            assert np.abs(shown.astype(int) - expected[row].numpy()).max() <= 1


def test_train_alone_says_how_to_score(forks, tmp_path):
    done = forks.run("train.py", *TINY, "--run_dir", tmp_path / "run", "--tensorboard", "--model", "mlp")
    assert done.returncode == 0, done.stderr
    assert f"python evaluate.py {tmp_path / 'run'}" in done.stdout
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def write_mnist(root, count=20):
    """The four files of MNIST in the real format, with random pixels."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for split in ("train", "t10k"):
        labels = (np.arange(count) % 10).astype(np.uint8)
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


SLOW = pytest.mark.slow  # every script in its turn; the others are alike


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        pytest.param("vanilla", "--config configs/mnist_mlp.yaml", marks=SLOW),
        ("dcgan", "--config configs/mnist_dcgan64.yaml"),
        pytest.param("wgan", "--config configs/cifar10_dcgan_wgan.yaml", marks=SLOW),
        pytest.param("wgan_gp", "--config configs/cifar10_dcgan_wgan_gp.yaml", marks=SLOW),
        ("sngan", "--dataset cifar10 --model resnet --loss hinge"),
    ],
)
def test_the_scripts_train_and_score(run_script, forks, monkeypatch, image_folder, tmp_path, name, flags):
    data = ["--dataset", "folder", "--data_dir", image_folder, "--image_size", 32, "--features", "classifier"]
    if "mnist" in flags:
        write_mnist(tmp_path)
        data = ["--data_dir", tmp_path]
    monkeypatch.setenv("PYTHON", "echo")  # what the script would start is started in a fork
    said = run_script(ROOT / "scripts" / f"train_{name}.sh", *TINY, *data, "--run_dir", tmp_path / "run")
    assert said.returncode == 0 and said.stdout.startswith(f"main.py {flags} "), said.stderr
    done = forks.run(*said.stdout.split())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "evaluation.json").exists()


def test_help_comes_without_importing_torch(run_script):
    probe = "import sys, main\ntry: main.main()\nexcept SystemExit: print('torch' in sys.modules)"
    quick = run_script(sys.executable, "-c", f"import sys; sys.argv = ['main.py', '--help']\n{probe}")
    assert quick.returncode == 0 and all(f"--{name}" in quick.stdout for name in FIELDS)
    assert quick.stdout.rstrip().endswith("False")


# ---- What is refused -----------------------------------------------------------------------------------------------

BAD_FLAGS = [
    (["--modle", "dcgan"], ["--model"]),
    (["--lr_D", "fast"], ["lr_D"]),
    (["--lr_D", "-1"], ["--lr_D must be more than 0, not -1.0"]),
    (["--image_size", "40"], ["40", "8, 16, 32"]),
    (["--arch_variant", "paper", "--model", "mlp"], ["arch_variant paper is for --model dcgan"]),
    (["--d_norm", "spectral", "weight"], ["exclude each other"]),
    (["--regularizer", "weight_clipping"], ["weight_clipping makes no sense with d_norm spectral"]),
    (["--config", "absent.yaml"], ["there is no absent.yaml"]),
    (["--device", "cuda:99"], ["cuda:99"]),
    (["--resume", "absent"], ["there is no run absent"]),
    (["--total_steps", "5", "--num_epochs", "1"], ["exclude each other"]),
]


@pytest.mark.parametrize("flags, words", BAD_FLAGS, ids=[" ".join(flags) for flags, _ in BAD_FLAGS])
def test_bad_flags_are_answered_in_one_line(call, tmp_path, flags, words):
    done = call("main.py", *flags, *([] if "--resume" in flags else ["--run_dir", tmp_path / "run"]))
    fails(done, *words)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text, words",
    [
        ("lr_D: 2e-4x", ["lr_D must be a number, not '2e-4x'"]),
        ("lrD: 0.1", ["unknown setting 'lrD'", "lr_D"]),
        ("loss: hinges", ["loss must be one of bce, hinge", "not 'hinges'; did you mean hinge?"]),
        ("- a\n- b", ["name: value"]),
        ("a: [1", ["not valid YAML"]),
        ("!!python/object/apply:os.system ['exit 3']", ["not valid YAML"]),
    ],
)
def test_bad_yaml_names_the_file_and_the_key(call, tmp_path, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    bad = tmp_path / "bad.yaml"
    fails(call("main.py", "--config", bad, "--run_dir", tmp_path / "run"), bad, *words)


@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist", "cifar10", "cifar100", "stl10"])
def test_no_network_and_no_data_is_explained(call, tmp_path, monkeypatch, dataset):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    done = call("train.py", "--dataset", dataset, "--data_dir", tmp_path, "--run_dir", tmp_path / "run")
    assert done.returncode == 2
    message = done.stderr[done.stderr.index("error: ") :]
    for words in (f"data set {dataset}", str(tmp_path), "by hand", "--dataset digits"):
        assert words in message, message


def test_a_cut_off_data_file_is_explained(call, tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    flags = ["--dataset", "mnist", "--data_dir", tmp_path, "--run_dir", tmp_path / "run", *TINY]
    fails(call("main.py", *flags), f"mnist cannot be loaded from {tmp_path}", "are damaged, delete them")


def test_bad_image_folders_are_named(call, image_folder, tmp_path):
    flags = ["--dataset", "folder", "--features", "classifier", *TINY, "--run_dir", tmp_path / "run", "--data_dir"]
    (tmp_path / "empty").mkdir()
    fails(call("main.py", *flags, tmp_path / "empty"), tmp_path / "empty", "no images")
    fails(call("main.py", *flags, tmp_path / "absent"), f"{tmp_path / 'absent'} does not exist")
    broken = image_folder / "dark" / "07.png"
    broken.write_bytes(broken.read_bytes()[:100])
    fails(call("main.py", *flags, image_folder), broken)


def test_absent_inception_weights_are_refused_before_training(call, image_folder, tmp_path):
    flags = ["--dataset", "folder", "--data_dir", image_folder, *TINY, "--run_dir", tmp_path / "run"]
    fails(call("main.py", *flags, "--inception_weights", tmp_path / "absent.pth"), "absent.pth")
    assert not (tmp_path / "run").exists()


class Payload:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def bad_checkpoints(run_dir, folder):
    """{what: path} of files that are no checkpoints of this project."""
    good = latest(run_dir)
    paths = {what: folder / f"{what}.pt" for what in ("truncated", "text", "code", "legacy_code", "tensor", "foreign")}
    paths["truncated"].write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    paths["text"].write_text("not a checkpoint")
    torch.save({"format": Payload(folder / "executed")}, paths["code"])
    paths["legacy_code"].write_bytes(pickle.dumps(Payload(folder / "executed")))
    torch.save(torch.zeros(3), paths["tensor"])
    content = checkpoint.read(good)
    content["config"]["model"] = "resnet"
    content["config"]["arch_variant"] = "code"
    torch.save(content, paths["foreign"])
    paths["absent"] = folder / "absent.pt"
    return paths


def test_bad_checkpoints_are_refused_and_nothing_in_them_runs(digits_run, call, data_dir, tmp_path):
    run_dir, _ = digits_run
    for what, path in bad_checkpoints(run_dir, tmp_path).items():
        done = call("evaluate.py", path, "--data_dir", data_dir)
        fails(done, path)
        if "code" in what:
            assert "never loaded" in done.stderr
    assert not (tmp_path / "executed").exists()


def test_samples_that_could_not_be_kept_are_refused_before_scoring(digits_run, call, tmp_path):
    run_dir, _ = digits_run
    fails(call("evaluate.py", run_dir, "--save_samples", tmp_path / "absent" / "x.npz"), "does not exist")


def test_a_run_directory_that_exists_is_refused(digits_run, call):
    run_dir, _ = digits_run
    fails(call("main.py", "--run_dir", run_dir), run_dir, "exists", "--resume")
