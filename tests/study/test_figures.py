"""The tables with a study's figures, on results whose story is known; every figure from little or no data."""

import numpy as np
import pytest
import torch
from study_results import make_audit, make_results, make_study

from settings.config import Config
from study.discriminator import lipschitz, over_training
from study.drawing import line_of, number
from study.grid import Run
from study.methods import METHODS
from study.report import figures, summary
from study.results import Result, stable_rank
from study.runs import Outcome
from study.samples import images_of
from study.scores import curves, scores
from study.stability import ranking, seconds
from training.reporting import rendering
from utils import plots

plt = plots.pyplot()


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def tables(study, results):
    """{name of a figure: its table}"""
    found = {}
    for figure in figures(study, results):
        found[figure.name] = figure.table
        plt.close(figure.drawn)
    return found


def row_of(table, name):
    """The cells of the row with this name, without it; of a cell with a smaller text, the larger one."""
    (row,) = [row for row in table.rows if row[0] == name]
    return [cell if isinstance(cell, str) else cell[0] for cell in row[1:]]


def test_the_best_method_of_each_setting_and_the_best_worst_case_are_named(tmp_path):
    study = make_study(tmp_path)
    fids = {("none", "A"): 10, ("none", "C"): 90, ("spectral", "A"): 20, ("spectral", "C"): 30, ("wgan_gp", "C"): 20}
    results = make_results(study, lambda method, setting: fids.get((method, setting), 50))
    table = scores(study, results, "fid").table
    assert table.header == ["setting", "best method", "FID", "apart from all others"]
    assert table.rows[0] == ["A", "nothing", ("10.1", "9.85 to 10.4"), "yes"]
    assert row_of(table, "C") == ["WGAN-GP", "20.2", "yes"]
    assert row_of(scores(study, results, "inception_score").table, "A")[0] == "nothing"
    found = summary(study._replace(metrics=("fid",)), results)
    assert [row[0] for row in found.rows] == ["spectral norm", "spectral + batch norm", "WGAN-GP", "nothing"]
    assert found.heroes == [0] and row_of(found, "spectral norm") == ["20.2", "30.3", "30.3", "-"]


def test_both_tables_mean_the_same_by_the_worst_setting_and_have_one_order(tmp_path):
    study = make_study(tmp_path, seeds=(0, 1), metrics=("fid",))
    results = make_results(study, lambda method, setting: 40 if method == "none" else 50)
    for result in results:  # the worst setting of nothing is another one in each seed; its means are level
        if result.run.method == "none":
            result.outcome.evaluation["fid"] = 60.0 if (result.run.setting == "A") == (result.run.seed == 0) else 30.0
    first, second = summary(study, results), ranking(study, results)
    assert [row[0] for row in first.rows] == [row[0] for row in second.rows]
    assert row_of(first, "nothing")[2] == row_of(second, "nothing")[0] == "60"  # and not 42.4
    assert "worst setting" in first.header and "worst setting" in second.header
    results[1] = results[1]._replace(outcome=Outcome("diverged", 2, "NaN"))  # spectral norm, which was first
    tables = summary(study, results), ranking(study, results)
    assert [[row[0] for row in table.rows][-1] for table in tables] == ["spectral norm"] * 2


def test_spectral_norm_is_not_praised_where_it_loses(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 99 if method == "spectral" else 10)
    assert summary(study._replace(metrics=("fid",)), results).heroes == [3]
    assert "spectral norm" not in {row[1] for row in scores(study, results, "fid").table.rows}


def test_intervals_that_overlap_or_are_of_one_seed_are_not_called_apart(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 10 + (method == "spectral") / 100)
    assert {row[-1] for row in scores(study, results, "fid").table.rows} == {"no"}
    one = [result for result in make_results(study, lambda m, s: 10 + 90 * (m == "spectral")) if result.run.seed == 0]
    assert {row[-1] for row in scores(study, one, "fid").table.rows} == {"no"}


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
    table = lipschitz(study, make_results(study, lambda method, setting: 10, sigma)).table
    assert table.header[1:3] == ["bound of D's slope", "steepest gradient seen"]
    assert row_of(table, "spectral norm") == ["1", "0.5", "1", "0.625", "6 of 6"]  # a stable rank of 1.25, of 2
    assert row_of(table, "nothing")[:3] == ["100", "5", "10"]
    assert row_of(table, "spectral + batch norm")[:3] == ["400", "10", "20"]


def test_a_gradient_above_the_bound_would_be_told(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",), seeds=(0,))
    (result,) = make_results(study, lambda method, setting: 10)
    broken = result._replace(audits={3: make_audit(1.0, 1.0, 1.5)})
    assert row_of(lipschitz(study, [broken]).table, "nothing")[-1] == "0 of 1"


def test_where_no_bound_is_known_the_gradients_are_shown_all_the_same(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",), seeds=(0,))
    (result,) = make_results(study, lambda method, setting: 10)
    attention = result._replace(audits={3: make_audit(1.0, None, 1.5)})
    assert row_of(lipschitz(study, [attention]).table, "nothing") == ["-", "1.5", "1", "0.625", "0 of 0"]


def test_the_time_of_a_step_is_compared_by_n_dis(tmp_path):
    study = make_study(tmp_path)
    times = {"none": 0.01, "spectral": 0.012, "wgan_gp": 0.03}
    figure = seconds(study, make_results(study, lambda method, setting: 10, seconds=times))
    assert figure.drawn.axes[0].get_ylim() == (3.5, -0.5)  # the first method is at the top
    table = figure.table
    assert table.header == ["method", "n_dis 1", "n_dis 5"]
    assert table.rows[1] == ["spectral norm", ("12.0", "x 1.20"), ("12.0", "x 1.20")]
    assert row_of(table, "WGAN-GP") == ["30.0", "30.0"]


def test_runs_that_are_not_finished_are_counted_and_take_no_part_in_means(tmp_path):
    study = make_study(tmp_path, settings=("C",), seeds=(0,))
    results = make_results(study, lambda method, setting: 10)
    results[1] = results[1]._replace(outcome=Outcome("diverged", 3, "NaN"))
    assert row_of(summary(study, results), "spectral norm") == ["-", "-", "1 diverged"]


def test_a_run_that_ended_early_takes_nothing_from_the_others(tmp_path):
    study = make_study(tmp_path)
    results = make_results(study, lambda method, setting: 10, {"spectral": 1.5})
    whole = tables(study, results), drawn_lines(over_training(study, results, "dynamics"))
    early = results[0]._replace(run=results[0].run._replace(method="spectral", setting="C", seed=9))
    early = early._replace(stats=early.stats[:1], audits={0: early.audits[0]}, outcome=Outcome("diverged", 1, "NaN"))
    assert tables(study, [*results, early]) == whole[0]
    assert drawn_lines(over_training(study, [*results, early], "dynamics")) == whole[1]


def drawn_lines(figure):
    """The points of the lines of a figure's panels that are not dotted."""
    lines = [line for axis in figure.drawn.axes for line in axis.lines if line.get_linestyle() != ":"]
    return [line.get_xydata().tolist() for line in lines]


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
        found = tables(study, chosen)
        assert len(found) in (9 + len(study.metrics), 9 + 2 * len(study.metrics))
        assert "nan" not in str([table.rows for table in found.values() if table])


def test_every_figure_has_a_caption_that_says_what_to_see(tmp_path):
    study = make_study(tmp_path)
    captions = rendering.PAGES.get_template("captions.html").module.CAPTIONS
    kinds = {figure.kind for figure in figures(study, make_results(study, lambda method, setting: 10))}
    assert kinds == set(captions)
    assert all(text.endswith(".") for text in captions.values())


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


def test_methods_that_are_alike_are_all_named(tmp_path):
    study = make_study(tmp_path, metrics=("classes_missing",))
    table = scores(study, scored(study, "classes_missing", lambda m, step: 0), "classes_missing").table
    assert row_of(table, "A") == ["nothing, spectral norm, spectral + batch norm, WGAN-GP", "0", "no"]


def test_of_nearer_the_middle_is_best(tmp_path):
    study = make_study(tmp_path, metrics=("nearer",))
    near = {"none": 0.1, "wgan_gp": 0.9, "spectral": 0.45, "spectral_batch": 0.6}
    figure = scores(study, scored(study, "nearer", lambda m, step: near[m]), "nearer")
    assert [row[1] for row in figure.table.rows] == ["spectral norm", "spectral norm"]
    assert "(0.5 is best)" in figure.drawn.get_supxlabel()


def test_no_method_lies_on_the_frame_and_no_two_lines_differ_in_hue_alone(tmp_path):
    study = make_study(tmp_path, methods=("none", "spectral"))
    results = make_results(study, lambda method, setting: 10)
    for figure in (scores(study, results, "fid"), lipschitz(study, results), seconds(study, results)):
        assert figure.drawn.axes[0].get_ylim() == (1.5, -0.5)
    looks = {(str(line["linestyle"]), line["marker"]) for line in map(line_of, METHODS)}
    assert len(looks) == len(METHODS) and line_of("spectral")["linestyle"] == "-"


def test_a_study_whose_values_are_zero_or_small_has_panels_that_show_them(tmp_path):
    study = make_study(tmp_path, methods=("none",), settings=("C",))
    results = make_results(study, lambda method, setting: 10)
    for result in results:
        for line in result.stats:
            line.update({"real_logits": 0.2, "fake_logits": 0.1, "grad_norm_G": 0.0})
    difference, _, gradient, _ = over_training(study, results, "dynamics").drawn.axes
    assert [axis.get_yscale() for axis in (difference, gradient)] == ["linear", "linear"]
