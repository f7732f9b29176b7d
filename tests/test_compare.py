"""compare.py as it is used: a small study run, started again, cut off, killed; results.csv and report.html."""

import base64
import csv
import html.parser
import io
import os
import shlex
import shutil
import signal
import sys
import threading

import pytest
import yaml
from browser import SIZES
from helpers import SMALL
from PIL import Image

import compare
from study import jobs
from training.checkpoints.run_dir import locked

BASE = {"dataset": "digits", "model": "mlp", "loss": "bce", "total_steps": 6, "log_every": 1, "sample_every": 6}
BASE |= {"eval_every": 3, "audit_every": 3, "save_every": 2, "keep": 1, **SMALL}
LONG = {"total_steps": 5000, "log_every": 5000, "eval_every": 5000, "audit_every": 5000}
PROCESS_OF_ITS_OWN = jobs.Processes.run
GRID = {"methods": ["none", "spectral"], "settings": ["C"], "seeds": [0], "metrics": ["inception_score", "fid"]}


def write_study(path, **changes):
    base = BASE | changes
    path.write_text(yaml.safe_dump({"base": base, **GRID}), encoding="utf-8")
    return path


# main.py, which after step 3 of a run without a normalization does what a file beside the study's folder says.
HOOKED = """
import os, signal, train
from pathlib import Path

import main
from utils.errors import run_as_script

step = train.step

def hooked(state, config):
    step(state, config)
    action = Path(config.run_dir).parent.with_suffix(".py")
    if state.step == 3 and config.d_norm == ("none",) and action.exists():
        exec(action.read_text())

train.step = hooked
run_as_script(main.main)
"""


@pytest.fixture(scope="module", autouse=True)
def forked(forks):
    """Runs are forks of a process that has imported torch, which spares each the seconds of that; one at a time."""
    one = threading.Lock()

    def run(self, words, console):
        with one:
            ended = forks.run(*words[1:]) if words[0] == "-c" else forks.run(HOOKED, *words[1:])
        with open(console, "a", encoding="utf-8") as file:
            file.write(ended.stdout + ended.stderr)
        return ended.returncode

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.Processes, "run", run)
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """The figures take longest, and are drawn in other tests."""
    monkeypatch.setattr("study.report.make_report", lambda study, results: (study.folder / "report.html").touch())


def after_step_3(folder, action):
    """Have the run without a normalization, of the study in this folder, do this."""
    folder.with_suffix(".py").write_text(action, encoding="utf-8")


def rows(folder):
    with open(folder / "results.csv", encoding="utf-8", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """The folder of a study that has run to its end, and its file."""
    root = tmp_path_factory.mktemp("study")
    config = write_study(root / "small.yaml", data_dir=data_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare.py", "--config", str(config), "--out", str(root / "runs"), "--jobs", "2"])
        compare.main()
    return config, root / "runs"


def test_every_run_is_a_usual_run_and_a_line_of_the_results(finished):
    _, folder = finished
    found = rows(folder)
    assert list(found) == ["none_C_seed0", "spectral_C_seed0"]
    assert (folder / "console" / "fetch.txt").read_text(encoding="utf-8").startswith("classifier of digits: test")
    for name, row in found.items():
        for file in ("config.yaml", "log.txt", "stats.jsonl", "evaluation.json", "checkpoints/step_000006.pt"):
            assert (folder / name / file).exists()
        assert [path.name for path in sorted((folder / name / "audits").iterdir())] == [
            f"step_00000{step}.json" for step in (0, 3, 6)
        ]
        assert row["outcome"] == "finished" and row["reached"] == row["last_step"] == "6"
        assert row["best_step"] in ("3", "6") and float(row["fid_at_best"]) <= float(row["fid"])
        assert float(row["lower_bound"]) <= float(row["upper_bound"])
        assert float(row["seconds"]) > float(row["seconds_per_step"]) > 0
        assert row["protocol"].startswith("modern: 100 samples, 1,498 train images of digits")
    assert abs(float(found["spectral_C_seed0"]["largest_sigma"]) - 1) < 0.2  # six steps after a random start


class Page(html.parser.HTMLParser):
    """The pictures, headings and links of a page, and the text of its captions."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.addresses, self.captions, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                self.addresses.append(value)
                if tag == "img":
                    self.pictures.append(value)

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "figcaption" and data.strip():
            self.captions.append(data)


def test_the_report_is_one_file_with_a_caption_under_each_picture(finished):
    _, folder = finished
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert all(address.startswith("data:") for address in page.addresses)
    assert "script" not in page.tags and "link" in page.tags
    drawn = sorted((folder / "figures").glob("*.png"))
    assert len(page.pictures) == len(page.captions) == len(drawn) == 13
    for picture in page.pictures:
        image = Image.open(io.BytesIO(base64.b64decode(picture.removeprefix("data:image/png;base64,"))))
        assert image.width > 500 and len(image.convert("L").getcolors()) > 1
    assert all(len(caption) > 20 and "nan" not in caption for caption in page.captions)


def test_a_browser_shows_the_report_whole_on_a_telephone_and_on_a_desk(finished, browser):
    for width in (360, 1280):
        browser.open(finished[1] / "report.html", width)
        assert browser.value(SIZES) == {"wide": 0, "images": 13, "cut": 0, "missing": 0}
    assert not browser.messages


def test_a_second_start_runs_nothing_and_mends_results_that_were_cut_off(finished, call):
    config, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*_seed0/**/*") if path.is_file()}
    text = (folder / "results.csv").read_text(encoding="utf-8")
    (folder / "results.csv").write_text(text[: len(text) // 2], encoding="utf-8")
    done = call("compare.py", "--config", config, "--out", folder)
    assert done.returncode == 0 and "small: 2 finished of 2 runs" in done.stdout
    assert (folder / "results.csv").read_text(encoding="utf-8") == text
    assert {path: path.stat().st_mtime_ns for path in before} == before

    report = (folder / "report.html").stat().st_mtime_ns
    assert call("compare.py", "--config", config, "--out", folder).returncode == 0
    assert (folder / "report.html").stat().st_mtime_ns == report  # nothing new, so it is not drawn again


def test_a_command_is_printed_for_each_run_that_is_not_finished_and_does_that_run(finished, call, tmp_path, undrawn):
    config, folder = finished
    assert call("compare.py", "--config", config, "--out", folder, "--print_commands").stdout == ""
    other = tmp_path / "a folder"
    flags = ["--config", config, "--out", other, "--total_steps", 3]
    printed = call("compare.py", *flags, "--print_commands").stdout
    commands = [shlex.split(line) for line in printed.splitlines()]
    assert [words[-1] for words in commands] == ["none_C_seed0", "spectral_C_seed0"] and not other.exists()
    assert commands[1] == ["python", "compare.py", *map(str, flags), "--run", "spectral_C_seed0"]

    done = call(*commands[1][1:])
    assert done.returncode == 0, done.stderr
    assert (other / "spectral_C_seed0" / "evaluation.json").exists() and not (other / "none_C_seed0").exists()
    done = call("compare.py", *flags, "--report")
    assert done.returncode == 0 and "small: 1 finished of 2 runs" in done.stdout
    assert list(rows(other)) == ["spectral_C_seed0"] and (other / "report.html").exists()


def test_a_part_of_the_grid_takes_nothing_from_the_report(finished, call):
    config, folder = finished
    before = (folder / "results.csv").read_bytes()
    done = call("compare.py", "--config", config, "--out", folder, "--methods", "spectral")
    assert done.returncode == 0 and "small: 2 finished of 2 runs" in done.stdout
    assert (folder / "results.csv").read_bytes() == before


def test_tables_fill_in_the_runs_that_are_not_there_and_replace_none_of_more_runs(finished, call, tmp_path, undrawn):
    config, folder = finished
    shutil.copytree(folder / "spectral_C_seed0", tmp_path / "part" / "spectral_C_seed0")
    done = call("compare.py", "--config", config, "--out", tmp_path / "part", "--report", "--results", folder)
    assert done.returncode == 0 and "small: 2 finished of 2 runs" in done.stdout
    assert (tmp_path / "part" / "results.csv").read_bytes() == (folder / "results.csv").read_bytes()
    assert (tmp_path / "part" / "training.csv").read_bytes() == (folder / "training.csv").read_bytes()
    flags = ["--config", config, "--report", "--results", folder, "--methods", "none"]
    done = call("compare.py", *flags, "--out", tmp_path / "one")
    assert done.returncode == 0 and list(rows(tmp_path / "one")) == ["none_C_seed0"]
    assert (tmp_path / "one" / "report.html").exists() and not (tmp_path / "one" / "none_C_seed0").exists()
    done = call("compare.py", *flags, "--out", folder)
    assert done.returncode == 2 and "which these would replace: choose another --out" in done.stderr
    assert len(rows(folder)) == 2
    done = call("compare.py", "--config", config, "--out", folder, "--results", folder)
    assert done.returncode == 2 and "add --report" in done.stderr
    done = call("compare.py", "--config", config, "--out", tmp_path / "no", "--report", "--results", tmp_path / "none")
    assert done.returncode == 2 and "results.csv cannot be read" in done.stderr and not (tmp_path / "no").exists()


def test_a_damaged_run_does_not_keep_the_others_from_the_report(finished, call, tmp_path):
    config, folder = tmp_path / "small.yaml", tmp_path / "runs"
    shutil.copy(finished[0], config)
    shutil.copytree(finished[1], folder)
    with open(folder / "none_C_seed0" / "stats.jsonl", "a", encoding="utf-8") as file:
        file.write("{}\n")
    for path in (folder / "none_C_seed0" / "samples").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    done = call("compare.py", "--config", config, "--out", folder, "--report")
    assert done.returncode == 0 and "1 failed, 1 finished of 2 runs" in done.stdout
    assert "stats.jsonl, line" in rows(folder)["none_C_seed0"]["message"]


def test_a_killed_run_is_recorded_and_the_others_finish_and_the_next_start_goes_on_with_it(
    call, tmp_path, data_dir, undrawn
):
    config, folder = write_study(tmp_path / "small.yaml", data_dir=data_dir), tmp_path / "runs"
    after_step_3(folder, "os.kill(os.getpid(), signal.SIGKILL)")
    done = call("compare.py", "--config", config, "--out", folder, "--jobs", 2)
    assert done.returncode == 2 and "not finished: none_C_seed0" in done.stderr
    assert "none_C_seed0 failed: killed by signal 9 (is there enough memory?)" in done.stdout
    found = rows(folder)
    assert [row["outcome"] for row in found.values()] == ["failed", "finished"]
    assert found["none_C_seed0"]["message"].startswith("killed by signal 9")

    before = {path: path.stat().st_mtime_ns for path in (folder / "spectral_C_seed0").rglob("*") if path.is_file()}
    after_step_3(folder, "")
    done = call("compare.py", "--config", config, "--out", folder, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert "resumed     at step 2" in (folder / "none_C_seed0" / "log.txt").read_text(encoding="utf-8")
    assert [row["outcome"] for row in rows(folder).values()] == ["finished", "finished"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_when_compare_is_stopped_its_runs_save_themselves_and_end(call, tmp_path, data_dir, monkeypatch):
    monkeypatch.setattr(jobs.Processes, "run", PROCESS_OF_ITS_OWN)
    (tmp_path / "hooked.py").write_text(HOOKED, encoding="utf-8")
    monkeypatch.setattr(jobs, "MAIN", [str(tmp_path / "hooked.py")])
    config, folder = write_study(tmp_path / "long.yaml", data_dir=data_dir, **LONG), tmp_path / "runs"
    after_step_3(folder, "os.kill(os.getppid(), signal.SIGTERM)")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # an exception, should compare.py not be there
    try:
        done = call("compare.py", "--config", config, "--out", folder, "--methods", "none")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.returncode == 128 + signal.SIGTERM and "Type the same command again to continue" in done.stderr
    console = (folder / "console" / "none_C_seed0.txt").read_text(encoding="utf-8")
    assert "SIGTERM: stopped after step" in console and "Traceback" not in console
    assert not list((folder / "console").glob("*.failed"))


def test_a_run_that_another_process_trains_is_left_alone_and_has_not_failed(call, tmp_path, data_dir):
    config, folder = write_study(tmp_path / "small.yaml", data_dir=data_dir), tmp_path / "runs"
    (folder / "none_C_seed0").mkdir(parents=True)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with locked(folder / "none_C_seed0"):
        done = call("compare.py", "--config", config, "--out", folder, "--run", "none_C_seed0")
    assert done.returncode == 2 and "not finished: none_C_seed0" in done.stderr
    assert f"none_C_seed0 is skipped: {folder / 'none_C_seed0'} is being trained by process" in done.stdout
    assert not list((folder / "console").iterdir())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_two_studies_do_not_write_to_one_folder(finished, call, tmp_path):
    config, folder = finished
    with locked(folder):
        done = call("compare.py", "--config", config, "--out", folder)
    assert done.returncode == 2 and f"{folder} is being trained by process {os.getpid()}" in done.stderr
    other = write_study(tmp_path / "other.yaml", batch_size=16)
    done = call("compare.py", "--config", other, "--out", folder)
    assert done.returncode == 2 and "belongs to another study: its batch_size is 8" in done.stderr
