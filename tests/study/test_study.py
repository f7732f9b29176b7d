"""Studies: what the grid holds, what a study's file may say, and what a run directory tells of its run."""

import json

import pytest
import torch
import yaml
from helpers import ROOT, SMALL

import train
from datasets.images import Images
from models import MODELS
from study import grid
from study.grid import METHODS, SETTINGS, load_study
from study.runs import DONE, arguments, clear, failure_path, outcome
from training.state import State
from utils.config import to_yaml
from utils.errors import UserError
from utils.parser import parse_args
from utils.settings import resolve

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
BASE = {"dataset": "digits", "model": "mlp", "total_steps": 4, "eval_every": 2, "audit_every": 2, **SMALL}
CONTENT = {
    "base": BASE,
    "methods": ["none", "spectral"],
    "settings": ["A", "C"],
    "seeds": [0, 1],
    "metrics": ["fid"],
    "quick": {"settings": ["C"], "seeds": [0]},
}


@pytest.fixture
def write(tmp_path):
    """Write a study's file, with keys replaced (None: left out); returns its path."""

    def write(**changes):
        content = {key: value for key, value in {**CONTENT, **changes}.items() if value is not None}
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


@pytest.fixture
def run(write, tmp_path):
    """One run of a small study, of which nothing exists yet."""
    return load_study(write(), tmp_path / "runs").run("spectral", "C", 0)


OTHER = {"features": "inception-v3-compat"}


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
    protocol["departures"] = []
    content = {"fid": 10.0, "inception_score": {"mean": 5.0, "std": 0.1}, "protocol": protocol | changes}
    (run.run_dir / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")


# ---- The grid ------------------------------------------------------------------------------------------------------


def test_the_settings_are_those_of_the_papers_table_1():
    rows = [(s["lr_G"], s["lr_D"], *s["betas"], s["n_dis"]) for s in SETTINGS.values()]
    assert rows == [
        (1e-4, 1e-4, 0.5, 0.9, 5),
        (1e-4, 1e-4, 0.5, 0.999, 1),
        (2e-4, 2e-4, 0.5, 0.999, 1),
        (1e-3, 1e-3, 0.5, 0.9, 5),
        (1e-3, 1e-3, 0.5, 0.999, 5),
        (1e-3, 1e-3, 0.9, 0.999, 5),
    ]
    assert "".join(SETTINGS) == "ABCDEF"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_every_model(model, method):
    flags = {"model": model, "dataset": "digits", **SMALL, "n_dis": 1}
    config, _ = resolve(flags | METHODS[method].settings)
    images = Images(torch.randint(0, 256, (16, 1, 8, 8), dtype=torch.uint8), torch.zeros(16), ())
    state = State(config, images, torch.device("cpu"))
    before = [p.detach().clone() for p in state.D.parameters()]
    train.step(state, config)
    assert state.history().isfinite().all()
    assert any(not torch.equal(a, b) for a, b in zip(before, state.D.parameters()))
    if method == "weight_clipping":
        assert all(p.abs().max() <= 0.01 for p in state.D.parameters())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_are_eleven_methods_in_six_settings_with_three_seeds(path, tmp_path):
    whole, quick = load_study(path), load_study(path, quick=True)
    assert len(whole.methods) == len(METHODS) == 11
    assert len({run.run_dir for run in whole.runs()}) == 11 * 6 * 3
    assert len(quick.runs()) == 5 * 3 * 1
    names = {run.name: run.config for run in whole.runs()}
    assert all(names[run.name] == run.config for run in quick.runs())  # so that they count for the whole


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


def test_overrides_and_choices_go_before_the_file(write):
    found = load_study(write(), overrides={"total_steps": 9}, seeds=[5], settings=["F"])
    assert {(run.config.total_steps, run.seed, run.setting) for run in found.runs()} == {(9, 5, "F")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["none", "spectrall"]}, "unknown method 'spectrall'; did you mean spectral?"),
        ({"settings": ["G"]}, "unknown setting 'G'; choices: A, B, C, D, E, F"),
        ({"metrics": ["fidd"]}, "unknown metric 'fidd'; did you mean fid?"),
        ({"seeds": [-1]}, "seeds are whole numbers"),
        ({"seeds": [0, 0]}, "seeds names one twice"),
        ({"seeds": [True]}, "seeds are whole numbers"),
        ({"methods": "spectral"}, "methods must be a list"),
        ({"methods": []}, "methods must be a list of one or more"),
        ({"methods": [1]}, "methods are names, not 1"),
        ({"methods": None}, "methods must be a list"),
        ({"method": ["none"]}, "unknown key 'method'; did you mean methods?"),
        ({"quick": {"base": {}}}, "unknown key of quick 'base'"),
        ({"base": {**BASE, "n_dis": 3}}, "base cannot set n_dis, which the study itself decides"),
        ({"base": {**BASE, "num_samples": None}}, "base has no value for num_samples; leave it out"),
        ({"base": {**BASE, "modle": "mlp"}}, "unknown setting 'modle'; did you mean model?"),
        ({"base": {**BASE, "batch_size": -1}}, "batch_size must be at least 2"),
        ({"base": {**BASE, "eval_every": 0}}, "base needs eval_every and audit_every"),
    ],
)
def test_a_mistaken_study_is_answered_in_words(write, changes, words):
    with pytest.raises(UserError) as error:
        load_study(write(**changes), quick="quick" in changes)
    assert words in str(error.value) and "small.yaml" in str(error.value)


def test_what_makes_no_sense_together_names_method_and_setting(write):
    with pytest.raises(UserError, match=r"method spectral, setting A: .*arch_variant paper is for --model dcgan"):
        load_study(write(base={**BASE, "arch_variant": "paper"})).run("spectral", "A", 0)


def test_a_study_that_is_no_list_of_keys_or_has_no_quick_part_is_refused(tmp_path, write):
    path = tmp_path / "text.yaml"
    path.write_text("spectral", encoding="utf-8")
    with pytest.raises(UserError, match="a study has the keys base, methods"):
        load_study(path)
    with pytest.raises(UserError, match="no part named quick"):
        load_study(write(quick=None), quick=True)


# ---- What a run came to --------------------------------------------------------------------------------------------


def test_a_run_without_a_directory_is_missing(run):
    assert outcome(run).state == "missing"


def test_a_run_is_finished_when_its_last_step_is_scored(run):
    leave(run)
    assert outcome(run)[:2] == ("unfinished", 4)
    evaluate(run)
    assert outcome(run)[:2] == ("finished", 4)


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
    (run.run_dir / "config.yaml").write_text("model: [ml", encoding="utf-8")
    assert outcome(run).state == "failed" and "config.yaml is damaged" in outcome(run).message


def test_fewer_steps_than_a_run_has_are_refused(write, tmp_path, run):
    leave(run)
    shorter = load_study(write(), tmp_path / "runs", overrides={"total_steps": 2}).run("spectral", "C", 0)
    with pytest.raises(UserError, match="is at step 4, beyond total_steps 2"):
        outcome(shorter)


def test_a_folder_belongs_to_the_study_that_took_it_first(write, tmp_path):
    first = load_study(write(), tmp_path / "runs")
    first.folder.mkdir()
    grid.claim(first)
    grid.claim(load_study(write(base={**BASE, "total_steps": 9, "log_every": 3}), tmp_path / "runs"))
    path = first.folder / "study.yaml"
    for damage in ("", "- 1", "{"):
        path.write_text(damage, encoding="utf-8")
        grid.claim(first, write=False)
        assert path.read_text(encoding="utf-8") == damage
        grid.claim(first)
        assert yaml.safe_load(path.read_text(encoding="utf-8")) == first.base
    with pytest.raises(UserError, match=r"belongs to another study: its z_dim is 8, and this one's 4.*--out"):
        grid.claim(load_study(write(base={**BASE, "z_dim": 4}), tmp_path / "runs"))


def test_grids_are_joined_in_the_order_of_the_table_and_cut_to_what_there_is(write):
    one, other = load_study(write()), load_study(write(), methods=["batch"], settings=["B"], seeds=[7])
    joined = one.with_all_of(other)
    assert (joined.methods, joined.settings, joined.seeds) == (
        ("none", "batch", "spectral"),
        ("A", "B", "C"),
        (0, 1, 7),
    )
    cut = joined.only([joined.run("spectral", "B", 7), joined.run("none", "B", 1)])
    assert (cut.methods, cut.settings, cut.seeds) == (("none", "spectral"), ("B",), (1, 7))


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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("batch_size", 16, "its batch_size is 8, and this one's 16"), ("num_samples", 200, "its num_samples is 100")],
)
def test_a_folder_with_the_runs_of_another_study_is_refused(write, tmp_path, run, name, value, words):
    leave(run)
    other = load_study(write(base={**BASE, name: value}), tmp_path / "runs").run("spectral", "C", 0)
    with pytest.raises(UserError, match=f"belongs to another study: {words}.*--out"):
        outcome(other)


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
