"""The benchmarks of a step and of pictures: they run, and the page has a place for everything that is measured."""

import json
import re
import sys

import pytest
import torch
from helpers import ROOT

from datasets import load_split
from settings.config import Config

sys.path.insert(0, str(ROOT / "benchmarks"))
import own_images
import page
import step_time

SIDE = {"seconds": 0.5, "images_per_second": 10.0, "share_of_matmul_peak": 1.5, "peak_MiB": 1234}
PARTS = {"spectral norm": 0.01, "data": 0.002, "optimizers": 0.03, "profile": {"convolutions": 0.8, "the rest": 0.2}}
REPORT = {
    "machine": {"matmul_GFLOPS": 160.0, "copy_GB_per_s": 20.0, "threads": 2},
    "cases": {
        "a case": {
            "ratio": 0.4321,
            "plain": SIDE,
            "fast": SIDE | PARTS,
            "sampling": {"ratio": 0.5, "plain_images_per_second": 1.0, "fast_images_per_second": 2.0},
        }
    },
    "growth": {"n_dis": [(1, {"seconds": 0.1, "peak_MiB": 800}), (2, {"seconds": 0.2, "peak_MiB": 801})]},
    "long_run": {100: {"seconds": 0.1, "peak_MiB": 800}, 10_000: {"seconds": 0.1, "peak_MiB": 800}},
}


def test_every_measured_table_has_its_place_on_the_page_and_nothing_else_changes(tmp_path, monkeypatch):
    written = tmp_path / "performance.md"
    written.write_text(page.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", written)
    monkeypatch.setattr(page, "PICTURE", tmp_path / "performance.png")
    assert set(page.tables(REPORT)) == set(re.findall(r"<!-- (\w+) -->", written.read_text())) - {"end"}
    page.write_page(REPORT)
    once = written.read_text(encoding="utf-8")
    assert "| a case | fast | 0.5 | 10.0 | 150.0 % | 1,234 | 0.4321 |" in once and "cifar10_dcgan | fast" not in once
    page.write_page(REPORT)
    assert written.read_text(encoding="utf-8") == once and (tmp_path / "performance.png").exists()


def test_both_sides_take_turns_and_answer():
    flags, _, _ = step_time.CASES["digits_mlp"]
    with step_time.processes() as both:
        found = step_time.compare(both, flags, 1, 2)
        samples = step_time.compare(both, flags, 1, 1, act="sample")
        end = both["fast"].ask("end")
    assert all(len(turns) == 2 and step_time.median(turns) > 0 for turns in found.values())
    assert step_time.ratio(found) > 0 and step_time.ratio(samples) > 0
    assert {"spectral norm", "data", "optimizers"} <= set(found["fast"][0])
    assert found["plain"][0]["peak_MiB"] > 100 and end["flops"] > 1e8
    assert sum(end["profile"].values()) == pytest.approx(1, abs=0.01)
    json.dumps(end)


def test_the_plain_loop_and_the_project_read_the_same_pictures(tmp_path):
    own_images.make_pictures(tmp_path / "own", 3, (40, 60))
    found = own_images.compare_decoding(tmp_path / "own", 3, 1)
    assert found["pictures"] == 3 and found["all cores"]["ms a picture"] > 0
    config = Config(dataset="folder", data_dir=str(tmp_path / "own"), image_size=16)
    plain = own_images.plain_loop(sorted((tmp_path / "own").glob("*.jpg")), 16)
    assert torch.equal(load_split(config).images, plain)
