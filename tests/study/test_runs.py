"""The runs of a study: what each came to, by its directory alone, and what starts it or goes on with it."""

import dataclasses
import json

import pytest
import yaml
from helpers import ROOT

from settings.command_line import parse_args
from settings.config import to_yaml
from settings.layers import resolve
from study.grid import load_study
from study.methods import METHODS
from study.runs import DONE, arguments, clear, failure_path, outcome
from utils.errors import UserError


def leave(run, step=4, diverged=None):
    """Write what a run leaves: its config.yaml with the record of a start, and checkpoints' names."""
    (run.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    entry = {"from_step": 0, "to_step": step, "wall_seconds": 1.5} | ({"diverged": diverged} if diverged else {})
    text = to_yaml(run.config) + yaml.safe_dump({"record": [entry]})
    (run.run_dir / "config.yaml").write_text(text, encoding="utf-8")


def evaluate(run, **changes):
    """Write the evaluation.json of the run's last step, 100 samples beside 1,498 real images."""
    protocol = {"step": 4, "seed": 0, "ema": True, "name": "modern", "num_samples": 100, "num_real": 1498}
    protocol |= {"features": "classifier", "features_sha256": "0" * 64, "split": "train", "dataset": "digits"}
    protocol |= {"departures": [], "features_warning": None}
    content = {"fid": 10.0, "inception_score": {"mean": 5.0, "std": 0.1}, "protocol": protocol | changes}
    (run.run_dir / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")


# ---- What a run came to --------------------------------------------------------------------------------------------


def test_a_run_without_a_directory_is_missing(run):
    assert outcome(run).state == "missing"


def test_a_run_is_finished_when_its_last_step_is_scored(run):
    leave(run)
    assert outcome(run)[:2] == ("unfinished", 4)
    evaluate(run)
    assert outcome(run)[:2] == ("finished", 4)


def test_the_features_that_a_run_chose_for_itself_are_the_study_s(run):
    leave(run)
    evaluate(run)
    path = run.run_dir / "config.yaml"
    text = path.read_text(encoding="utf-8")
    assert "features: auto\n" in text
    path.write_text(text.replace("features: auto\n", "features: classifier\n"), encoding="utf-8")
    assert outcome(run)[:2] == ("finished", 4)
    with pytest.raises(UserError, match="its features is classifier, but this one's is inception"):
        outcome(run._replace(config=dataclasses.replace(run.config, features="inception")))


OTHER = {"features": "inception-v3-compat"}


@pytest.mark.parametrize(
    "change", [{"step": 2}, {"num_samples": 5000}, {"name": "test"}, {"seed": 1}, {"ema": False}, OTHER]
)
def test_a_run_that_was_scored_in_another_way_is_not_finished(run, change):
    leave(run)
    evaluate(run, **change)
    assert outcome(run).state == "unfinished"


@pytest.mark.parametrize("text", ["", '{"protocol": {"st', "[]", '{"protocol": {"step": "4"}}', "null"])
def test_an_evaluation_that_is_not_whole_leaves_the_run_unfinished(run, text):
    leave(run)
    (run.run_dir / "evaluation.json").write_text(text, encoding="utf-8")
    assert outcome(run).state == "unfinished"


def test_a_run_that_diverged_says_where_and_is_not_tried_again(run):
    leave(run, step=3, diverged="loss_D is not finite at step 3")
    assert outcome(run)[:3] == ("diverged", 3, "loss_D is not finite at step 3")
    assert "diverged" in DONE


def test_a_damaged_configuration_is_a_failure_of_that_run_alone(run):
    leave(run)
    for text in ("model: [ml", "[1, 2]", "3", ""):
        (run.run_dir / "config.yaml").write_text(text, encoding="utf-8")
        assert outcome(run).state == "failed" and "config.yaml is damaged" in outcome(run).message


def test_a_run_that_failed_says_why_till_it_is_finished(run):
    leave(run, step=2)
    failure_path(run).parent.mkdir()
    failure_path(run).write_text("killed by signal 9\n", encoding="utf-8")
    assert outcome(run)[:3] == ("failed", 2, "killed by signal 9")
    leave(run)
    evaluate(run)
    assert outcome(run).state == "finished"


def test_more_steps_make_a_finished_run_unfinished(write, tmp_path, run):
    leave(run)
    evaluate(run)
    longer = load_study(write(), tmp_path / "runs", overrides={"total_steps": 8}).run("spectral", "C", 0)
    assert outcome(longer)[:2] == ("unfinished", 4)


def test_fewer_steps_than_a_run_has_are_refused(write, tmp_path, run):
    leave(run)
    shorter = load_study(write(), tmp_path / "runs", overrides={"total_steps": 2}).run("spectral", "C", 0)
    with pytest.raises(UserError, match="is at step 4, beyond total_steps 2"):
        outcome(shorter)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("batch_size", 16, "its batch_size is 8, but this one's is 16"), ("num_samples", 200, "its num_samples is 100")],
)
def test_a_folder_with_the_runs_of_another_study_is_refused(write, tmp_path, run, name, value, words):
    leave(run)
    other = load_study(write(also={name: value}), tmp_path / "runs").run("spectral", "C", 0)
    with pytest.raises(UserError, match=f"belongs to another study: {words}.*--out"):
        outcome(other)


# ---- Starting it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_arguments_of_a_run_make_its_very_configuration(method, tmp_path):
    run = load_study(ROOT / "configs" / "studies" / "digits.yaml", tmp_path).run(method, "E", 2)
    flags, dry_run = parse_args("", arguments(run))
    assert not dry_run
    assert resolve(flags)[0] == run.config


def test_a_cut_off_run_is_resumed_with_what_may_change(run):
    leave(run, step=2)
    (run.run_dir / "checkpoints" / "step_000002.pt").touch()
    words = arguments(run)
    assert words[:2] == ["--resume", str(run.run_dir)]
    flags, _ = parse_args("", words)
    assert flags["total_steps"] == 4
    assert not {"run_dir", "model", "lr_G", "seed"} & set(flags)


def test_what_ended_before_its_first_checkpoint_is_cleared_and_nothing_else(run):
    leave(run, step=0)
    clear(run)
    assert not run.run_dir.exists()
    for kept in ("checkpoints/step_000000.pt", "checkpoints/step_000000.pt.damaged", "evaluation.json"):
        leave(run, step=0)
        (run.run_dir / kept).touch()
        clear(run)
        assert run.run_dir.exists()
        (run.run_dir / kept).unlink()
    (run.run_dir / "notes.txt").touch()  # somebody's own
    clear(run)
    assert run.run_dir.exists()
    (run.run_dir / "notes.txt").unlink()
    leave(run, step=3)  # its checkpoints were taken away, but not what else there is
    clear(run)
    assert run.run_dir.exists()
