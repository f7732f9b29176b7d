"""The paper's claims: whether they hold in results whose story is known, and what makes that sure."""

import pytest
from study_results import make_results, make_study

from study.claims import claims, learnt, rows
from study.runs import Outcome
from study.stability import ranking


def verdicts(study, results):
    return {claim.words: (claim.holds, claim.figure) for claim in claims(study, results)}


def test_spectral_norm_is_not_first_where_its_run_diverged_nor_surely_first_of_one_seed(tmp_path):
    study = make_study(tmp_path, seeds=(0, 1))
    results = make_results(study, lambda m, s: 10 if m == "spectral" else 60)
    words = "It is robust over the optimizer's settings"
    assert [(c.holds, c.sure) for c in claims(study, results) if c.words == words] == [(True, True)]
    one = [result for result in results if result.run.seed == 0]
    assert [(c.holds, c.sure) for c in claims(study, one) if c.words == words] == [(True, False)]
    assert "holds here (uncertain)" in [row[1] for row in rows(claims(study, one), one)]
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
        "setting C has 1.1 (1.1 to 1.1) times the FID of the best setting; lowest ratio of the paper's other methods: "
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
        "a step takes 1.20 (1.20 to 1.20) times as long as without it, and 3.00 (3.00 to 3.00) times "
        "with WGAN-GP's penalty",
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
