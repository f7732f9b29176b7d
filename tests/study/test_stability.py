"""Ranks, times to a FID and the share of unstable scores, of results whose story is known; the paper's claims."""

import math

import pytest
import torch
from matplotlib import pyplot as plt
from study_results import PROTOCOL, make_results, make_study

from settings.config import Config
from study.claims import claims, learnt, rows
from study.grid import Run
from study.report import figures
from study.results import Result
from study.runs import Outcome
from study.samples import film
from study.stability import median_best, ranking, ranks, seconds_at, seconds_to, unstable
from utils import plots


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


def test_spectral_norm_is_not_first_where_its_run_diverged_nor_surely_first_of_one_seed(tmp_path):
    study = make_study(tmp_path, seeds=(0, 1))
    results = make_results(study, lambda m, s: 10 if m == "spectral" else 60)
    words = "It is robust over the optimizer's settings"
    assert [(c.holds, c.sure) for c in claims(study, results) if c.words == words] == [(True, True)]
    one = [result for result in results if result.run.seed == 0]
    assert [(c.holds, c.sure) for c in claims(study, one) if c.words == words] == [(True, False)]
    assert "holds here, not surely" in [row[1] for row in rows(claims(study, one), one)]
    gone = next(i for i, result in enumerate(results) if result.run.method == "spectral")
    results[gone] = results[gone]._replace(outcome=Outcome("diverged", 2, "NaN"))
    (claim,) = [claim for claim in claims(study, results) if claim.words == words]
    assert claim.holds is False and "number 3 of 3 methods of the paper" in claim.figure
    one = [result for result in results if result.run.seed == 0]
    (claim,) = [claim for claim in claims(study, one) if claim.words == words]
    assert (claim.holds, claim.figure) == (False, "it diverged in 1 of 2 runs")


def test_a_method_that_diverged_stays_among_those_that_spectral_norm_is_before(tmp_path):
    study = make_study(tmp_path, seeds=(0,))
    results = make_results(study, lambda m, s: 30 if m == "spectral" else 10)
    gone = Outcome("diverged", 2, "NaN")
    results = [r if r.run.method == "spectral" else r._replace(outcome=gone) for r in results]
    (claim,) = [c for c in claims(study, results) if c.words == "It is robust over the optimizer's settings"]
    assert (claim.holds, claim.sure) == (True, False) and "number 1 of 3 methods of the paper" in claim.figure
    (claim,) = [c for c in claims(study, results) if c.words == "It stabilizes training"]
    assert claim.holds is True and "diverged: 0 of 2 runs, 4 of 4 (" in claim.figure


def test_nothing_is_sure_of_one_seed_but_what_one_run_refutes(tmp_path):
    study = make_study(tmp_path, seeds=(0,))
    steep = make_results(study, lambda m, s: 10, {"spectral": 4.0})
    assert [claim.words for claim in claims(study, steep) if claim.sure] == ["D's slope is at most 1 while it trains"]
    assert [c.holds for c in claims(study, steep) if c.sure] == [False]


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
    assert verdicts(study, results)["It stabilizes training"] == (
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


# ---- The paper's claims --------------------------------------------------------------------------------------------


def verdicts(study, results):
    return {claim.words: (claim.holds, claim.figure) for claim in claims(study, results)}


def test_the_claims_hold_where_the_figures_say_so(tmp_path):
    study = make_study(tmp_path)
    fids = {("spectral", "A"): 20, ("spectral", "C"): 22, ("none", "A"): 10, ("none", "C"): 90}
    times = {"none": 0.01, "spectral": 0.012, "wgan_gp": 0.03}
    made = make_results(study, lambda m, s: fids.get((m, s), 30 if s == "A" else 60), {"spectral": 1.0}, times)
    found = verdicts(study, made)
    assert found["It is robust over the optimizer's settings"] == (
        True,
        "the worst setting's FID, the mean over seeds, is 22.2 (21.7 to 22.8), number 1 of 3 methods of the paper; "
        "WGAN-GP: 60.6 (59.1 to 62.1); best of the methods not in the paper: spectral + batch norm, 60.6",
    )
    assert found["It needs no tuning of the settings"] == (
        True,
        "setting C has 1.1 (1.1 to 1.1) times the FID of the best setting; the least of the paper's other methods: "
        "WGAN-GP, 2 (2 to 2)",
    )
    # Of (1, 1/2) the stable rank is 1.25, of 2: the same for all methods here
    assert found["D's singular values stay spread"] == (
        None,
        "the stable rank of D's weights is 62% (62% to 62%) of the full one (setting C); nothing 62% (62% to 62%)",
    )
    assert found["D's slope is at most 1 while it trains"] == (
        True,
        "steepest gradient of any run: 0.5 under spectral norm, 0.5 under nothing; its layers' true norms allow 1",
    )
    assert found["It costs less than a gradient penalty"] == (
        True,
        "a step takes 1.20 (1.20 to 1.20) times as long as without, with WGAN-GP's penalty 3.00 (3.00 to 3.00) times",
    )
    assert found["It stabilizes training"] == (
        None,
        "0% (0% to 0%) of its scores are above twice the best one so far; the median of the paper's other methods: "
        "nothing, 0% (0% to 0%); collapsed or diverged: 0 of 6 runs, 0 of 12 (one-sided Fisher p = 1)",
    )
    shown = [row[1:] for row in rows(claims(study, made), made)]
    assert ["no difference here", found["It stabilizes training"][1]] in shown
    assert {claim.sure for claim in claims(study, made) if claim.holds is not None} == {True}


def test_the_claims_fail_where_the_figures_say_so(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda m, s: {"A": 9, "C": 99}[s] if m == "spectral" else 10, {"spectral": -1.0})
    found = verdicts(study, results)
    assert found["It is robust over the optimizer's settings"][0] is False
    assert "number 3 of 3 methods of the paper; nothing: 10.1" in found["It is robust over the optimizer's settings"][1]
    assert found["It needs no tuning of the settings"][0] is False
    assert "other methods: nothing, 1 (1 to 1)" in found["It needs no tuning of the settings"][1]
    assert found["It costs less than a gradient penalty"][0] is None  # all steps take as long
    assert "It costs less than a gradient penalty" not in verdicts(
        study, [r for r in results if (r.run.method, r.run.setting) not in {("none", "A"), ("spectral", "C")}]
    )  # no setting has all three
    dear = make_results(study, lambda m, s: 10, {}, {"spectral": 0.03, "wgan_gp": 0.02})
    assert verdicts(study, dear)["It costs less than a gradient penalty"][0] is False
    assert verdicts(study, dear)["It needs no tuning of the settings"][0] is None  # nor does any other method
    assert verdicts(study, dear)["It is robust over the optimizer's settings"][0] is None  # as all others are


def lose(results, methods, count):
    """Let the first `count` runs of these methods diverge."""
    chosen = [i for i, result in enumerate(results) if result.run.method in methods][:count]
    return [r._replace(outcome=Outcome("diverged", 2, "NaN")) if i in chosen else r for i, r in enumerate(results)]


@pytest.mark.parametrize(
    ("ours", "others", "chance", "expected"),  # of 9 and of 36 runs
    [(0, 5, "0.31", (True, False)), (0, 20, "0.0023", (True, True)), (9, 0, "1.1e-09", (False, True))],
)
def test_training_is_not_surely_steadier_where_chance_alone_could_lose_as_many_runs(
    tmp_path, ours, others, chance, expected
):
    rest = ("none", "batch", "weight", "wgan_gp")
    study = make_study(tmp_path, methods=("spectral", *rest), settings=("A", "B", "C"))
    results = lose(lose(make_results(study, lambda m, s: 10), ["spectral"], ours), rest, others)
    (claim,) = [claim for claim in claims(study, results) if claim.words == "It stabilizes training"]
    assert (claim.holds, claim.sure) == expected
    assert claim.figure.endswith(f"{ours} of 9 runs, {others} of 36 (one-sided Fisher p = {chance})")


def test_training_is_not_surely_steadier_where_the_intervals_of_unstable_scores_overlap(tmp_path):
    study = make_study(tmp_path, methods=("none", "spectral"), settings=("C",))
    results = make_results(study, lambda m, s: 10)  # 20, 5, 10 at steps 1 to 3
    one = [r for r in results if (r.run.method, r.run.seed) == ("none", 0)]
    one[0].outcome.evaluation["fid"] = 11.0
    (claim,) = [claim for claim in claims(study, results) if claim.words == "It stabilizes training"]
    assert (claim.holds, claim.sure) == (True, False) and "nothing, 17% (0% to 88%)" in claim.figure


def test_what_differs_between_seeds_by_more_than_between_methods_is_not_sure(tmp_path):
    study = make_study(tmp_path)
    times = {(0, "wgan_gp"): 0.1, (1, "wgan_gp"): 0.011, (2, "wgan_gp"): 0.01}
    results = make_results(study, lambda m, s: 10)
    for result in results:
        method, _, seed = result.run[:3]
        for line in result.stats[:3]:
            line["seconds_per_step"] = times.get((seed, method), 0.01)
        result.audits[3]["rank_used"] = {"spectral": (0.5, 0.3, 0.4)}.get(method, (0.35, 0.1, 0.2))[seed]
    found = {claim.words: (claim.holds, claim.sure) for claim in claims(study, results)}
    assert found["D's singular values stay spread"] == found["It costs less than a gradient penalty"] == (True, False)


def test_no_steep_gradient_seen_proves_no_bound(tmp_path):
    study = make_study(tmp_path)
    words = "D's slope is at most 1 while it trains"
    for size, expected in ((1.0, (True, True)), (1.5, (True, False)), (3.0, (False, True))):
        found = claims(study, make_results(study, lambda m, s: 10, {"spectral": size}))  # bound size^2, seen size / 2
        assert [(claim.holds, claim.sure) for claim in found if claim.words == words] == [expected]


def test_there_is_no_verdict_where_less_than_half_of_the_runs_have_learnt(tmp_path):
    study = make_study(tmp_path, settings=("C",), seeds=(0, 1))
    results = make_results(study, lambda m, s: 10)  # 20, 5, 10 at steps 1 to 3
    flat = [r._replace(stats=[line | {"fid": 14.0} if "fid" in line else line for line in r.stats]) for r in results]
    once = [r._replace(stats=[line for line in r.stats if "fid" not in line]) for r in results]
    assert [learnt(found) for found in (results, flat, once, results[:4] + flat[4:], results[:3] + flat[3:])] == [
        *(True, False, False, True, False)
    ]
    assert {row[1] for row in rows(claims(study, flat), flat)} == {"no verdict: the runs have learnt too little"}
    assert "no verdict: the runs have learnt too little" not in str([*rows(claims(study, results), results)])


def test_the_cost_of_a_step_is_compared_within_a_seed(tmp_path):
    slow, quick = (
        make_results(make_study(tmp_path, seeds=(seed,)), lambda m, s: 10, {}, {"spectral": 3 * unit, "none": unit})
        for seed, unit in ((0, 0.1), (1, 0.001))  # on a machine that is a hundred times slower
    )
    results = slow + [result for result in quick if result.run.method != "none"]
    found = verdicts(make_study(tmp_path, seeds=(0, 1)), results)
    assert found["It costs less than a gradient penalty"][1].startswith("a step takes 3.00 times as long as without")


def test_claims_about_settings_are_not_made_of_other_settings(tmp_path):
    study = make_study(tmp_path, methods=("spectral", "spectral_batch", "none"))
    results = make_results(study, lambda m, s: 10)
    assert "It is robust over the optimizer's settings" in verdicts(study, results)
    other = study._replace(table={"A": {}, "C": {"num_images": 75}})
    found = verdicts(other, results)
    assert not {"It is robust over the optimizer's settings", "It needs no tuning of the settings"} & set(found)
    without = [result for result in results if result.run.method != "none"]
    assert [*verdicts(study, without)] == ["D's slope is at most 1 while it trains"]  # the others need another method


def test_a_study_without_spectral_norm_or_without_runs_says_nothing_of_it(tmp_path):
    study = make_study(tmp_path, methods=("none", "wgan_gp"))
    assert claims(study, make_results(study, lambda m, s: 10)) == []
    whole = make_study(tmp_path)
    bare = [r._replace(stats=[], audits={}, outcome=Outcome("missing")) for r in make_results(whole, lambda m, s: 10)]
    assert claims(whole, bare) == []
    assert {row[1] for row in ranking(whole, bare).rows} == {"-"}
