"""The sentences under a study's figures, on results whose story is known; every figure from little or no data."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from study_results import make_audit, make_results, make_study

from settings.config import Config
from study.discriminator import lipschitz, stable_rank
from study.drawing import extremes, number
from study.grid import Run
from study.report import figures
from study.results import Result
from study.runs import Outcome
from study.samples import images_of, seconds
from study.scores import curves, scores
from utils import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def sentences(study, results):
    found = {}
    for figure in figures(study, results):
        found[figure.name] = figure.sentence
        plt.close(figure.drawn)
    return found


def test_the_best_method_of_each_setting_and_the_best_worst_case_are_named(tmp_path):
    study = make_study(tmp_path)
    fids = {("none", "A"): 10, ("none", "C"): 90, ("spectral", "A"): 20, ("spectral", "C"): 30, ("wgan_gp", "C"): 20}
    results = make_results(study, lambda method, setting: fids.get((method, setting), 50))
    text = scores(study, results, "fid").sentence
    assert "A nothing (10.1), C WGAN-GP (20.2)" in text
    assert "In 2 of 2 settings the best one's interval lies apart from all others'" in text
    assert "Over all 2 settings spectral norm has the best worst case (30.3), and is best in 0 of 2 settings" in text
    assert "A nothing (9.9" in scores(study, results, "inception_score").sentence


def test_spectral_norm_is_not_praised_where_it_loses(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 99 if method == "spectral" else 10)
    text = scores(study, results, "fid").sentence
    assert "spectral norm is number 4 of 4 by that, and best in 0 of 2 settings" in text


def test_intervals_that_overlap_are_not_called_apart(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 10 + (method == "spectral") / 100)
    assert "In 0 of 2 settings" in scores(study, results, "fid").sentence


def test_what_is_lost_after_the_best_step(tmp_path):
    study = make_study(tmp_path)
    text = curves(study, make_results(study, lambda method, setting: 10), "fid").sentence
    assert text.endswith("2.00 for every method.")


def test_the_line_over_training_is_the_mean_that_the_tables_have(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",))
    results = make_results(study, lambda method, setting: 10)
    for result, value in zip(results, (1.0, 10.0, 100.0)):
        result.stats.append({"step": 4, "fid": value, "inception_score": value, "protocol": "modern"})
    for metric, mean in (("fid", 10.0), ("inception_score", 37.0)):  # a geometric one and an arithmetic one
        (axis,) = curves(study, results, metric).drawn.axes
        assert axis.lines[0].get_ydata()[-1] == pytest.approx(mean)


def test_what_bounds_d_and_that_batch_norm_voids_it(tmp_path):
    study = make_study(tmp_path)
    sigma = {"none": 10.0, "spectral": 1.0, "spectral_batch": 20.0, "wgan_gp": 2.0}
    found = sentences(study, make_results(study, lambda method, setting: 10, sigma))
    text = found["lipschitz"]
    assert "above the steepest gradient in 24 of 24 audits" in text
    assert "Under spectral norm the bound is 1 and the steepest gradient seen 0.5 (geometric means over runs)" in text
    assert "Without any normalization the bound is 100" in text
    assert (
        "Batch norm beside spectral norm voids it: its gains lift the bound to 400, and gradients of 10 were seen"
        in text
    )
    assert "highest for spectral + batch norm (20)" in found["singular_values_over_training"]
    assert "all largest ones lie between 1.000 and 1.000" in found["singular_values_over_training"]
    assert "steepest for spectral + batch norm (20)" in found["dynamics"]
    assert "Under spectral norm D is right about 75% of images" in found["dynamics"]


def test_a_gradient_above_the_bound_would_be_told(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",), seeds=(0,))
    (result,) = make_results(study, lambda method, setting: 10)
    broken = result._replace(audits={3: make_audit(1.0, 1.0, 1.5)})
    assert "in 0 of 1 audits" in lipschitz(study, [broken]).sentence


def test_the_time_of_a_step_is_compared_at_the_larger_n_dis(tmp_path):
    study = make_study(tmp_path)
    times = {"none": 0.01, "spectral": 0.012, "wgan_gp": 0.03}
    text = seconds(study, make_results(study, lambda method, setting: 10, seconds=times)).sentence
    assert "With n_dis 5: longest for WGAN-GP (30.0 ms)" in text
    assert "In units of no normalization: spectral norm 1.20, WGAN-GP 3.00" in text
    assert "on cpu, made up, 1 thread(s) each" in text


def test_collapsed_and_diverged_runs_are_counted(tmp_path):
    study = make_study(tmp_path, settings=("C",), seeds=(0,))
    results = make_results(study, lambda method, setting: 10)
    results[0].outcome.evaluation["warnings"] = ["the generator has collapsed: a sample is as near as 0 to the next"]
    results[1] = results[1]._replace(outcome=Outcome("diverged", 3, "NaN"))
    found = sentences(study, results)
    assert found["samples_by_setting"] == (
        "Of 3 runs that are finished, 1 collapsed to nearly one image: 1 of nothing. Diverged: 1 of spectral norm."
    )
    assert "Left out of the means: 1 of 4 runs, not finished." in found["fid_by_setting"]


def test_a_run_that_ended_early_takes_nothing_from_the_others(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 10, {"spectral": 1.5})
    whole = sentences(study, results)
    early = results[0]._replace(run=results[0].run._replace(method="spectral", setting="C", seed=9))
    early = early._replace(stats=early.stats[:1], audits={0: early.audits[0]}, outcome=Outcome("diverged", 1, "NaN"))
    found = sentences(study, [*results, early])
    for name in ("dynamics", "singular_values", "singular_values_over_training", "lipschitz", "fid_curves"):
        assert found[name] == whole[name]


def test_batch_norm_that_lowers_the_bound_is_not_said_to_lift_it(tmp_path):
    study = make_study(tmp_path)
    text = lipschitz(study, make_results(study, lambda m, s: 10, {"spectral": 2.0, "spectral_batch": 1.0})).sentence
    assert "Batch norm beside spectral norm leaves the bound at 1" in text


def test_extremes_are_named_and_ties_are_ties():
    values = {"none": 3.0, "spectral": 2.0, "batch": 1.0}
    assert extremes(values, "most", "least") == "most nothing (3), least batch norm (1); spectral norm 2"
    assert extremes({"none": 3.0, "spectral": 2.0}, "most", "least") == "most nothing (3), least spectral norm (2)"
    assert extremes({"none": 1.0, "batch": 1.0}, "most", "least") == "1 for every method"
    assert extremes({"none": 1.0}, "most", "least") == "1 for nothing"
    tied = {"none": 3.0, "spectral": 1.0, "batch": 1.0}
    assert extremes(tied, "most", "least") == "most nothing (3), least 2 methods alike (1); spectral norm 1"


@pytest.mark.parametrize(
    "part",
    [
        {"methods": ("none",), "settings": ("B",), "seeds": (0,), "metrics": ("kid",)},
        {"methods": ("spectral",), "seeds": (0,)},
        {},
    ],
    ids=["one run and no spectral norm", "one method", "all"],
)
def test_every_figure_is_drawn_of_any_part_of_a_study_and_of_runs_that_have_just_begun(tmp_path, part):
    study = make_study(tmp_path, **part)
    results = make_results(study, lambda method, setting: 10)
    bare = [result._replace(stats=[], audits={}, outcome=Outcome("unfinished")) for result in results]
    for chosen in (results, results[:1], bare):
        found = sentences(study, chosen)
        assert len(found) in (10 + len(study.metrics), 10 + 2 * len(study.metrics))
        assert all(text.endswith(".") and "nan" not in text for text in found.values())


def test_the_stable_rank_counts_equal_singular_values():
    assert stable_rank([3.0, 3.0, 3.0, 3.0]) == pytest.approx(4)
    assert stable_rank([2.0, 0.0, 0.0]) == pytest.approx(1)
    assert stable_rank([2.0, 1.0]) == pytest.approx(1.25)
    assert stable_rank([0.0, 0.0]) == 0


def test_numbers_have_three_digits():
    assert [number(x) for x in (0.12345, 1.0, 12.345, 99.96, 1234.4, 3e15)] == [
        "0.123",
        "1",
        "12.3",
        "100",
        "1,234",
        "3e+15",
    ]


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (1, 64)])
def test_the_images_of_a_saved_grid_are_read_back(tmp_path, channels, side):
    images = torch.randint(0, 256, (100, channels, side, side), dtype=torch.uint8)
    plots.grid(images).save(tmp_path / "step_000001.png")
    found = plots.read_grid(tmp_path / "step_000001.png")
    factor = found.shape[1] // side
    expected = images.permute(0, 2, 3, 1).numpy().repeat(factor, 1).repeat(factor, 2)
    assert np.array_equal(found, expected[..., 0] if channels == 1 else expected)


def test_samples_are_shown_from_the_last_grid(tmp_path):
    for step, value in ((500, 10), (1500, 200)):
        (tmp_path / "samples").mkdir(exist_ok=True)
        plots.grid(torch.full((100, 1, 8, 8), value, dtype=torch.uint8)).save(tmp_path / f"samples/step_{step:06d}.png")
    run = Run("none", "C", 0, {}, Config(run_dir=str(tmp_path)))
    images = images_of(Result(run, Outcome("finished"), [], {}), 9)
    assert images.shape[0] == 9 and (images == 200).all()


# ---- Ties, zeros and scores of which neither end is best ----------------------------------------------------------


def scored(study, metric, value):
    """Results whose metric is value(method, step) at steps 1 to 3."""
    results = make_results(study, lambda method, setting: 10)
    for result in results:
        del result.outcome.evaluation["fid"]
        result.stats.extend({"step": step, metric: value(result.run.method, step)} for step in (1, 2, 3))
    return [r._replace(outcome=r.outcome._replace(evaluation=None), stats=_joined(r.stats)) for r in results]


def _joined(stats):
    lines = {}
    for line in stats:
        lines.setdefault(line["step"], {}).update(line)
    return list(lines.values())


def test_methods_that_are_alike_are_counted_and_not_ranked(tmp_path):
    study = make_study(tmp_path, metrics=("classes_missing",))
    found = scores(study, scored(study, "classes_missing", lambda m, step: 0), "classes_missing").sentence
    assert found.startswith("Best mean classes missing by setting: A 4 methods alike (0), C 4 methods alike (0).")
    assert (
        "4 methods alike have the best worst case (0); spectral norm is number 1 of 4 by that, and best in 2" in found
    )


def test_what_is_lost_down_to_zero_is_not_left_out(tmp_path):
    study = make_study(tmp_path, metrics=("recall",))
    results = scored(study, "recall", lambda m, step: 0.5 if m == "spectral" or step < 3 else 0.0)
    found = curves(study, results, "recall").sentence
    assert "By how much the last recall is worse" in found
    assert "most for 3 methods alike (0.5), least for spectral norm (0)" in found


def test_of_nearer_the_middle_is_best(tmp_path):
    study = make_study(tmp_path, metrics=("nearer",))
    near = {"none": 0.1, "wgan_gp": 0.9, "spectral": 0.45, "spectral_batch": 0.6}
    figure = scores(study, scored(study, "nearer", lambda m, step: near[m]), "nearer")
    assert "A spectral norm (0.45), C spectral norm (0.45)" in figure.sentence
    assert "(0.5 is best)" in figure.drawn.get_supxlabel()
