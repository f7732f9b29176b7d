"""What a run's config.yaml says of how it came about."""

import socket
import subprocess
import sys

import pytest
import torch
import yaml
from helpers import ROOT, go_on, start

import train
from settings.config import stored
from settings.layers import read_yaml

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_config_yaml_records_how_the_run_came_about_at_each_start_and_is_a_config_still(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--run_dir", "with a space"])
    config = start(tmp_path, total_steps=2)
    train.train(config)
    go_on(tmp_path, total_steps=4)
    path = tmp_path / "run" / "config.yaml"
    first, second = yaml.safe_load(path.read_text())["record"]
    assert first["command"].endswith("train.py --run_dir 'with a space'")
    assert first["host"] == socket.gethostname()
    assert first["versions"]["torch"] == torch.__version__
    described = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert first["commit"] in (None, described, f"{described}-dirty") and (described == "") == (first["commit"] is None)
    assert [(entry["from_step"], entry["to_step"]) for entry in (first, second)] == [(0, 2), (2, 4)]
    assert all(entry["wall_seconds"] > 0 and entry["processes"] == 1 for entry in (first, second))
    expected = {**stored(config), "total_steps": 4}
    assert read_yaml(path) == {k: tuple(v) if isinstance(v, list) else v for k, v in expected.items()}


def test_a_resume_says_what_differs_from_the_last_start(tmp_path, capsys):
    train.train(start(tmp_path, total_steps=2))
    path = tmp_path / "run" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["record"][0]["versions"]["torch"] = "1.13.1"
    path.write_text(yaml.safe_dump(content))
    capsys.readouterr()
    go_on(tmp_path, total_steps=4, log_every=1)
    printed = capsys.readouterr().out
    assert "changed     total_steps 2 -> 4\n" in printed and "changed     log_every 2 -> 1\n" in printed
    assert "torch 1.13.1" in printed and "threads" not in printed.split("changed     versions")[0]


def test_a_record_that_somebody_broke_is_begun_anew(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    (tmp_path / "run" / "config.yaml").write_text("record: [*a, &a {}]")
    go_on(tmp_path, total_steps=4)
    assert len(yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"]) == 1
