"""Paths as users type them: ~, spaces, bytes that are no UTF-8, and terminals that know ASCII alone."""

import io
import json
import os
import shlex
import shutil

import numpy as np
import pytest
import yaml
from helpers import TINY, start

import train
from settings.layers import read_yaml, resolve
from training import prepare
from training.checkpoints.run_dir import latest
from utils.console import Outlet, command

STRANGE = os.fsdecode(b"caf\xe9 r\xc3\xbcn")  # the first word is Latin-1's, with a space behind it


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_home_is_understood_in_flags_and_in_yaml(home, tmp_path):
    written = tmp_path / "settings.yaml"
    written.write_text("data_dir: ~/pictures\ninception_weights: ~/weights.pth\nrun_dir: ~/run\n")
    config, _ = resolve(read_yaml(written))
    assert [config.data_dir, config.inception_weights] == [str(home / "pictures"), str(home / "weights.pth")]
    assert config.run_dir == str(home / "run")
    config, _ = resolve({"config": str(written)})
    assert config.data_dir == str(home / "pictures")


def test_every_script_understands_the_home(home, call, data_dir, no_pictures):
    shutil.copytree(data_dir, home / "data")
    for typed in (
        ["train.py", *TINY, "--run_dir", "~/a run", "--data_dir", "~/data"],
        ["train.py", "--resume", "~/a run", "--total_steps", 3],
        ["evaluate.py", "~/a run", "--save_samples", "~/kept.npz"],
        ["evaluate.py", "--samples", "~/kept.npz", "--dataset", "digits", "--image_size", 8, "--channels", 1],
        ["generate.py", "~/a run", "--num", 2, "--out", "~/out", "--export", "~/G.pt"],
        ["compare.py", "--out", "~/study", "--print_commands"],
    ):
        done = call(*typed, *(["--data_dir", "~/data"] if "--samples" in typed else []))
        assert done.returncode == 0, done.stderr
    assert latest(home / "a run").name == "step_000003.pt"
    assert np.load(home / "kept.npz")["samples"].shape == (100, 8, 8, 1)
    assert sorted(path.name for path in (home / "out").iterdir()) == ["grid.png", "seed000000.png", "seed000001.png"]
    assert (home / "G.pt").is_file() and not os.path.exists("~")


def test_commands_that_are_printed_can_be_pasted(call, tmp_path, no_pictures):
    where = tmp_path / "it's a run"
    done = call("train.py", *TINY, "--run_dir", where)
    score = done.stdout.split("Score it: ")[1].split("   (")[0]
    assert shlex.split(score) == ["python", "evaluate.py", str(where)]
    refused = call("train.py", *TINY, "--run_dir", where).stderr
    assert shlex.split(refused.split("Continue it with ")[1].split(", or choose")[0]) == ["--resume", str(where)]
    assert command("a b", 1) == "'a b' 1"


def test_a_run_whose_name_is_no_utf8_is_trained_scored_and_drawn(call, tmp_path, data_dir, no_pictures):
    where, data = tmp_path / STRANGE, tmp_path / f"data {STRANGE}"
    shutil.copytree(data_dir, data)
    for typed in (
        ["train.py", *TINY, "--run_dir", where, "--data_dir", data],
        ["train.py", "--resume", where, "--total_steps", 3],
        ["evaluate.py", where, "--save_samples", tmp_path / f"{STRANGE}.npz"],
        ["generate.py", where, "--num", 1, "--out", where / "out", "--export", where / f"{STRANGE}.pt"],
        ["generate.py", where / f"{STRANGE}.pt", "--num", 1, "--npz", where / "again.npz"],
    ):
        done = call(*typed)
        assert done.returncode == 0, done.stderr
    assert yaml.safe_load((where / "config.yaml").read_text())["data_dir"] == str(data)
    assert json.loads((where / "evaluation.json").read_text())["checkpoint"] == str(latest(where))
    assert "run         " in (where / "log.txt").read_text() and r"caf\udce9" in (where / "log.txt").read_text()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_line_vanishes_on_a_terminal_that_cannot_show_it(encoding):
    raw = io.BytesIO()
    outlet = Outlet(io.TextIOWrapper(raw, encoding=encoding))
    outlet.write(f"before {STRANGE} \u2192 after\n")
    text = raw.getvalue().decode(encoding)
    assert text.startswith("before caf\\udce9 r") and text.endswith(" after\n")
    assert ("\u2192" in text) == (encoding == "utf-8")


def test_a_second_run_takes_the_next_free_name_and_says_so(tmp_path, monkeypatch, capsys, no_pictures):
    monkeypatch.chdir(tmp_path)
    flags = {"model": "mlp", "base_channels": 2, "total_steps": 1}
    for name in ("seed0", "seed0-2", "seed0-3"):
        config = prepare(flags)
        train.train(config)
        assert config.run_dir == f"runs/digits_mlp_hinge_spectral_{name}"
    said = capsys.readouterr().out
    taken = "runs/digits_mlp_hinge_spectral_seed0"
    assert f"run_dir     {taken}-3, since {taken} already holds a run, which --resume {taken} continues" in said
    with pytest.raises(Exception, match="never overwrites another"):
        start(tmp_path / "runs", "digits_mlp_hinge_spectral_seed0")  # where a name is given, it is that or none
