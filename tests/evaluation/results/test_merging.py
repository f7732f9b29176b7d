"""Scores stay, as a user sees it: other ways of scoring, a longer resume, tables of what stands and what is missing."""

import csv
import json
from pathlib import Path
from shutil import copytree

from evaluation_results import at
from helpers import fails

from training.checkpoints.run_dir import checkpoint_path, latest


def test_scoring_in_another_way_adds_to_what_the_run_has(scored):
    run, done = scored(what=at(2, 4))
    assert done.returncode == 0, done.stderr
    top = json.loads((run / "evaluation.json").read_text())
    picture = (run / "plots" / "evaluation_neighbours.png").read_bytes()
    scored("--num_samples", 200, what=at(0))
    _, done = scored("--no_ema", what=at(4))
    content = json.loads((run / "evaluation.json").read_text())
    assert {name: content[name] for name in top if name != "results"} == {k: top[k] for k in top if k != "results"}
    found = [(r["protocol"]["step"], r["protocol"]["num_samples"], r["protocol"]["ema"]) for r in content["results"]]
    assert found == [(0, 200, True), (2, 100, True), (4, 100, True), (4, 100, False)]
    assert (run / "plots" / "evaluation_neighbours.png").read_bytes() == picture
    assert f"written to {run / 'plots' / 'evaluation_step_000004_no_ema_neighbours.png'}" in done.stdout
    with open(run / "evaluation.csv", newline="") as file:
        assert [row["fid"] for row in csv.DictReader(file)] == [str(r["fid"]) for r in content["results"]]


def test_a_longer_resume_keeps_the_scores_even_of_deleted_checkpoints(scored, call, data_dir, no_pictures):
    run, _ = scored()
    flags = ["--total_steps", 5, "--keep", 1, "--data_dir", data_dir]
    done = call("main.py", "--resume", run, *flags)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_000005.pt"]
    content = json.loads((run / "evaluation.json").read_text())
    assert [result["protocol"]["step"] for result in content["results"]] == [0, 2, 4, 5]
    assert content["protocol"]["step"] == content["last"]["step"] == 5
    assert "of 4 checkpoints, the best by FID is" in done.stdout


def test_a_table_takes_the_scores_that_stand_and_makes_those_that_are_missing(scored, call, data_dir, tmp_path):
    run, _ = scored(what=at(4))
    other = Path(copytree(run, tmp_path / "other"))
    fails(call("evaluate.py", run, other, "--table", tmp_path / "t.md"), "each seed of a configuration once")
    before = (run / "evaluation.json").read_text()
    paths = [run, checkpoint_path(other, 2)]
    done = call("evaluate.py", *paths, "--table", tmp_path / "t.csv", "--data_dir", data_dir)
    assert done.returncode == 0, done.stderr
    assert f"{latest(run)}: its scores are taken from {run / 'evaluation'}.json" in done.stdout
    assert (run / "evaluation.json").read_text() == before
    assert f"{paths[1]}:\n" in done.stdout  # it was scored
    with open(tmp_path / "t.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["n"]]
    assert [(row["step"], row["n"]) for row in rows] == [("4", "1"), ("2", "1")]
    assert float(rows[0]["fid"]) == json.loads(before)["fid"]


def test_a_run_that_cannot_be_written_is_not_scored(scored, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    run, done = scored()
    fails(done, f"the scores cannot be written: {run} is not a folder that can be written to")
    assert "FID" not in done.stdout
