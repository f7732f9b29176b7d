"""Ranks, times to a FID and the share of unstable scores, of results whose story is known."""

import math

import pytest
import torch
from study_results import PROTOCOL, make_results, make_study

from settings.config import Config
from study.claims import claims
from study.grid import Run
from study.report import figures
from study.results import Result
from study.runs import Outcome
from study.samples import film
from study.stability import median_best, ranking, ranks, seconds_at, seconds_to, unstable
from utils import plots

plt = plots.pyplot()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def make_result(fids, seconds=0.5, every=2):
    """A run scored at each step from 1, whose steps take so long; its log has a line every so many steps."""
    stats = [{"step": step, "fid": fid} for step, fid in enumerate(fids, 1)]
    stats += [{"step": step, "seconds_per_step": seconds * step} for step in range(every, len(fids) + every, every)]
    return Result(Run("none", "C", 0, {}, Config()), Outcome("finished", len(fids)), stats, {})


def test_the_time_to_a_fid_is_that_of_training_up_to_it():
    result = make_result([90, 50, 20, 30, 10])
    assert seconds_at(result) == {2: 2 * 1.0, 4: 2 * 1.0 + 2 * 2.0, 6: 2 * 1.0 + 2 * 2.0 + 2 * 3.0}
    assert seconds_to(result, 50) == 2.0
    assert seconds_to(result, 25) == 6.0  # at step 3, which the line of step 4 is the first to time
    assert seconds_to(result, 9) == math.inf
    assert seconds_to(result._replace(stats=[]), 9) == math.inf


@pytest.mark.parametrize(
    ("fids", "share"), [([8, 4, 2], 0), ([2, 4, 4.1, 1, 3], 2 / 4), ([1, 3, 3, 3], 1), ([5], None), ([], None)]
)
def test_a_score_above_twice_the_best_so_far_is_unstable(fids, share):
    assert unstable(make_result(fids)) == share


def test_the_last_score_counts_at_whatever_step_it_was():
    scored = make_result([8, 2])
    late = scored._replace(outcome=Outcome("finished", 5, "", {"fid": 9.0, "inception_score": {"mean": 1, "std": 0}}))
    late = late._replace(outcome=late.outcome._replace(evaluation=late.outcome.evaluation | {"protocol": PROTOCOL}))
    assert late.series("fid") == {1: 8, 2: 2, 5: 9.0} and unstable(late) == 1 / 2
    assert scored.series("fid") == {1: 8, 2: 2}


def test_g_itself_is_compared_at_a_step_that_both_were_scored_at(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",), seeds=(0,))
    (result,) = make_results(study, lambda m, s: 10)  # 20, 5, 10 at steps 1 to 3
    result.stats.extend({"step": step, "fid_of_G": 15.0} for step in (1, 2))
    assert ranks(study, [result], None)[0].own_over_average == 15.0 / 5


def test_half_of_the_runs_reach_the_median_of_the_best():
    assert median_best([make_result([9, best, 7]) for best in (1, 2, 6)]) == 2
    assert median_best([]) is None


def test_methods_are_ranked_by_their_worst_setting_and_behind_those_that_never_diverged(tmp_path):
    study = make_study(tmp_path)
    fids = {("none", "A"): 1, ("none", "C"): 80, ("spectral", "A"): 20, ("spectral", "C"): 30, ("wgan_gp", "C"): 60}
    results = make_results(study, lambda method, setting: fids.get((method, setting), 5))
    gone = next(i for i, result in enumerate(results) if result.run.method == "spectral_batch")
    results[gone] = results[gone]._replace(outcome=Outcome("diverged", 2, "NaN"))
    found = ranks(study, results, 20.0)
    assert [rank.method for rank in found] == ["spectral", "wgan_gp", "none", "spectral_batch"]
    assert [rank.diverged for rank in found] == [0, 0, 0, 1]
    first = found[0]
    assert first.worst.mean == pytest.approx(30 * (1.01 * 1.02) ** (1 / 3)) and first.worst.count == 3
    assert first.median.mean == pytest.approx(25 * (1.01 * 1.02) ** (1 / 3))
    assert found[3].worst.count == 2  # a seed that lacks a setting has no worst one
    # The best FIDs, half of the last, are at step 2 of 0.01 s each; those of (none, C), (wgan_gp, C) never reach 20.
    # So half of their runs never come there, and the median has no end.
    assert [(rank.seconds, rank.reached, rank.runs) for rank in found[:3]] == [(0.02, 6, 6), (None, 3, 6), (None, 3, 6)]
    assert [rank.unstable for rank in found] == [0.0, 0.0, 0.0, 0.0]
    assert [rank.last_over_best for rank in found] == [2.0, 2.0, 2.0, 2.0]
    header, rows, heroes = ranking(study, results)
    assert header[:3] == ["method", "worst setting", "median setting"] and "G itself" not in header
    assert rows[0][:2] == ["spectral norm", ("30.3", "29.6 to 31.1")] and heroes == [0]
    given = ranking(study._replace(target_fid=20.0), results)
    assert given.header[4] == "seconds to FID 20" and given.rows[0][4] == ("0.02", "6 of 6 runs")
    assert given.rows[1][4] == ("-", "3 of 6 runs")


def test_g_itself_stands_beside_its_moving_average(tmp_path):
    study = make_study(tmp_path, methods=("none", "spectral"), settings=("C",), seeds=(0,))
    results = make_results(study, lambda method, setting: 10)
    factors = {"none": 3.0, "spectral": 1.5}
    for result in results:
        own = {step: value * factors[result.run.method] for step, value in result.series("fid").items()}
        own[1] = 1.0  # so that all that follows is unstable
        result.stats.extend({"step": step, "fid_of_G": value} for step, value in own.items())
    found = {rank.method: rank for rank in ranks(study, results, None)}
    assert {method: rank.own_over_average for method, rank in found.items()} == pytest.approx(factors)
    assert [rank.unstable for rank in found.values()] == [1.0, 1.0]  # of the average it is 0
    found = {claim.words: (claim.holds, claim.figure) for claim in claims(study, results)}
    assert found["It stabilizes training"] == (
        None,
        "100% of the scores of its G itself are above twice the best one so far; the median of the paper's other "
        "methods: nothing, 100%; collapsed or diverged: 0 of 1 runs, 0 of 1 (one-sided Fisher p = 1)",
    )
    assert "fid_of_G_curves" in {figure.name for figure in figures(study, results)}
    assert row_of(ranking(study, results), "nothing", "G itself") == "3.00"


def row_of(table, name, column):
    return next(row for row in table.rows if row[0] == name)[table.header.index(column)]


def test_collapsed_and_diverged_runs_are_counted(tmp_path):
    study = make_study(tmp_path, settings=("C",), seeds=(0,))
    results = make_results(study, lambda method, setting: 10)
    results[0].outcome.evaluation["warnings"] = ["the generator has collapsed: a sample is as near as 0 to the next"]
    results[1] = results[1]._replace(outcome=Outcome("diverged", 3, "NaN"))
    found = {rank.method: (rank.collapsed, rank.diverged) for rank in ranks(study, results, None)}
    assert found == {"none": (1, 0), "spectral": (0, 1), "spectral_batch": (0, 0), "wgan_gp": (0, 0)}


def test_a_film_shows_each_step(tmp_path):
    study = make_study(tmp_path, methods=("none", "spectral"), settings=("C",), seeds=(0,))
    results = make_results(study, lambda method, setting: 10)
    for result in results:
        (result.run.run_dir / "samples").mkdir(parents=True)
        for step in range(1, 10):
            picture = plots.grid(torch.full((100, 1, 8, 8), 20 * step, dtype=torch.uint8))
            picture.save(result.run.run_dir / f"samples/step_{step:06d}.png")
    results[1] = results[1]._replace(outcome=Outcome("diverged", 5, "NaN"))
    for step in range(6, 10):
        (results[1].run.run_dir / f"samples/step_{step:06d}.png").unlink()
    axes = [axis for axis in film(study, results).drawn.axes if axis.images]
    shown = [int(axis.images[0].get_array().min()) // 20 for axis in axes]
    assert shown == [1, 2, 3, 5, 6, 7, 9, 1, 2, 3, 5]  # what it did not come to is not drawn of what it had
