"""What is read from runs: the last and the best scores, audits in numbers, intervals over seeds."""

import json
import math

import pytest

from settings.config import Config
from study.grid import Run, Study
from study.results import Result, by, interval, means, over_settings, read, summed
from study.runs import Outcome


def result(method="none", setting="C", seed=0, scores=(), state="finished", **changes):
    """A Result whose lines have these FIDs at steps 10, 20, ..."""
    stats = [{"step": 5, "loss_D": 1.0}]
    stats += [
        {"step": 10 * i, "fid": fid, "inception_score": 10 / fid, "protocol": "modern"}
        for i, fid in enumerate(scores, 1)
    ]
    found = Result(Run(method, setting, seed, {}, Config()), Outcome(state, 10 * len(scores)), stats, {})
    return found._replace(**changes)


def test_the_best_score_is_the_lowest_fid_and_the_last_is_the_last():
    found = result(scores=(50.0, 20.0, 30.0))
    assert (found.best["step"], found.best["fid"], found.last["step"]) == (20, 20.0, 30)
    assert found.series("inception_score") == {10: 0.2, 20: 0.5, 30: 10 / 30}
    assert result().best == result().last == {}


def test_the_evaluation_of_a_finished_run_is_its_last_score():
    protocol = {"step": 40, "name": "modern", "num_samples": 5, "num_real": 6, "split": "train", "dataset": "digits"}
    protocol |= {"features": "classifier", "features_sha256": "0123456789", "departures": ["5 samples, not 50,000"]}
    evaluation = {"fid": 10.0, "inception_score": {"mean": 9.0, "std": 0.5}, "kid": {"mean": 0.1, "std": 0}}
    evaluation |= {"precision": 0.25, "recall": 0.75, "protocol": protocol}
    found = result(scores=(50.0, 20.0), outcome=Outcome("finished", 40, evaluation=evaluation))
    assert found.last["fid"] == found.best["fid"] == 10.0 and found.best["step"] == 40
    assert found.last["departures"] == "5 samples, not 50,000" and found.last["inception_score_std"] == 0.5
    assert found.last["precision"] == 0.25


def test_intervals_are_students():
    # t(0.975) with 2 degrees of freedom is 4.302653; the standard error of 1, 2, 3 is 1 / sqrt(3).
    found = interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert found == pytest.approx((2.0, 2.0 - half, 2.0 + half, 3), abs=1e-9)
    found = interval([math.exp(1), math.exp(2), math.exp(3)], logarithmic=True)
    assert found == pytest.approx((math.exp(2), math.exp(2 - half), math.exp(2 + half), 3))
    assert interval([7.0]) == (7.0, 7.0, 7.0, 1) and interval([7.0, 7.0]) == (7.0, 7.0, 7.0, 2)
    assert interval([]) is None


def test_the_time_of_a_step_is_the_median_of_the_logs_intervals():
    lines = [{"step": i, "seconds_per_step": seconds} for i, seconds in enumerate((9.0, 1.0, 2.0, 1.5, 1.2))]
    assert result()._replace(stats=lines).seconds_per_step == 1.5
    assert result().seconds_per_step is None


def test_results_are_grouped_in_the_order_they_have():
    found = [result("none", "A"), result("batch", "A"), result("none", "C", 1), result("none", "A", 2)]
    assert {key: len(group) for key, group in by(found, "method", "setting").items()} == {
        ("none", "A"): 2,
        ("batch", "A"): 1,
        ("none", "C"): 1,
    }


def test_an_audit_is_summed_up_by_its_largest_singular_value_and_the_share_of_the_rank_that_is_used():
    def layer(*values):
        return {"sigma_svd": values[0], "singular_values": list(values)}

    # Stable ranks: (9 + 9) / 9 of 2, (4 + 1) / 4 of 2; a single row has no rank to use, zeros none either.
    found = summed({"layers": [layer(3.0, 3.0), layer(2.0, 1.0), layer(5.0), layer(0.0, 0.0)], "lower_bound": 1.0})
    assert found["largest_sigma"] == 5.0 and found["lower_bound"] == 1.0
    assert found["rank_used"] == pytest.approx((2 / 2 + 1.25 / 2) / 2)
    assert summed({"layers": []}) == {"layers": [], "largest_sigma": None, "rank_used": None}


def test_damaged_files_make_a_failed_run_of_which_the_rest_is_read(tmp_path):
    run = Run("none", "C", 0, {}, Config(run_dir=str(tmp_path)))
    (tmp_path / "audits").mkdir()
    whole = {"upper_bound": 2.0, "lower_bound": 1.0, "layers": []}
    (tmp_path / "audits" / "step_000300.json").write_text(json.dumps(whole), encoding="utf-8")
    audits = {300: whole | {"largest_sigma": None, "rank_used": None}}
    assert read(run, Outcome("unfinished"))[1:4] == (Outcome("unfinished"), [], audits)
    for text in ('{"upper', "{}", "[]", "3"):
        (tmp_path / "audits" / "step_000600.json").write_text(text, encoding="utf-8")
        found = read(run, Outcome("finished", 600))
        assert found.outcome.state == "failed" and "step_000600.json is damaged" in found.outcome.message
        assert found.audits == audits


@pytest.mark.parametrize(("loss", "state"), [(9e5, "finished"), (1e28, "diverged"), (-2e6, "diverged")])
def test_a_run_whose_loss_ended_beyond_a_million_has_diverged_without_nan(tmp_path, loss, state):
    (tmp_path / "stats.jsonl").write_text(f'{{"step": 1, "loss_D": 1e9}}\n{{"step": 2, "loss_D": {loss}}}\n')
    found = read(Run("none", "C", 0, {}, Config(run_dir=str(tmp_path))), Outcome("finished", 2))
    assert found.outcome.state == state
    assert found.outcome.message == ("" if state == "finished" else f"loss_D ended at {loss:.3g}, beyond 1,000,000")


def test_means_are_of_finished_runs_and_geometric_for_fid():
    study = Study("made up", None, {}, ("none", "batch"), ("A", "C"), (0, 1), ("fid",))
    results = [result("none", "A", 0, (10.0,)), result("none", "A", 1, (1000.0,)), result("batch", "A", 0, (50.0,))]
    results += [result("none", "C", 0, (20.0,)), result("batch", "C", 0, (1.0,), "diverged")]
    found = means(results, "fid")
    assert found["A", "none"].mean == pytest.approx(100) and found["A", "none"].count == 2
    assert set(found) == {("A", "none"), ("A", "batch"), ("C", "none")}
    none, batch = by(results, "method").values()
    assert over_settings(study, none, "fid", max).mean == pytest.approx(20)  # of seed 0, since seed 1 lacks C
    assert over_settings(study, batch, "fid", max) is None
    assert means(results, "inception_score")["A", "none"].mean == pytest.approx((10 / 10 + 10 / 1000) / 2)
