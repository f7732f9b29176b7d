"""Curves as SVG: every point at its place, round ticks, and words for who cannot see them."""

import itertools
import math
import re

import pytest

from training.reporting import charts


def test_a_curve_goes_through_its_points():
    drawn = charts.chart("loss", {"D": [(0, 1.0), (50, 3.0), (100, 2.0)]})
    (line,) = re.findall(r'<path stroke="var\(--c0\)" [^>]*d="M([\d., ]+)"', drawn.svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    assert (x0, x2) == (charts.LEFT, charts.WIDTH - charts.RIGHT) and x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1) and y1 < y0  # larger is higher
    assert (drawn.title, drawn.caption) == ("loss", "At step 100: D 2")
    assert 'aria-label="loss. At step 100: D 2"' in drawn.svg


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    drawn = charts.chart("norm", {"a": [(0, 0.01), (1, 0.1), (2, 1.0)]}, log=True)
    line = re.findall(r' d="M([\d., ]+)"', drawn.svg)[0]
    first, second, third = (float(point.split(",")[1]) for point in line.split())
    assert first - second == pytest.approx(second - third, abs=0.2) and drawn.caption.endswith("(logarithmic axis)")
    assert "logarithmic" not in charts.chart("norm", {"a": [(0, 0.0), (1, 1.0)]}, log=True).caption


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (-3, 9, [0, 5]),
        (0.11, 0.52, [0.2, 0.4]),
        (1e-4, 5e-4, [1e-4, 2e-4, 3e-4, 4e-4, 5e-4]),
    ],
)
def test_ticks_are_round_numbers_within_the_axis(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize("points", [[(5, 2.0)], [(0, 0.0), (9, 0.0)], [(0, 1e30), (1, -1e30)], [(0, 1e-30)]])
def test_any_numbers_make_a_drawing_without_nan(points):
    drawn = charts.chart("x", {"a": points, "none": []})
    assert drawn.svg.startswith("<svg") and "nan" not in drawn.svg and "inf" not in drawn.svg


def test_without_points_there_is_no_chart_and_names_are_escaped():
    assert charts.chart("x", {"a": []}) is None
    assert "<b>" not in charts.chart("<b>", {"<b>": [(0, 1.0)]}).svg


def test_many_points_become_means_of_neighbours():
    thinned = charts.thinned([(i, float(i)) for i in range(1000)])
    assert len(thinned) == 200 and thinned[:2] == [(2, 2), (7, 7)]
    assert thinned[-1] == (999, 999)  # a curve ends at the step that its caption names


def written(drawn):
    """{text in a drawing: where it stands}."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.-]+)"[^>]*>([^<]*)</text>', drawn.svg)
    return {text: (float(x), float(y)) for x, y, text in found}


def test_curves_on_each_other_are_told_apart_by_dashes_and_names_at_their_ends():
    drawn = charts.chart("learning rate", {"G": [(0, 2e-4), (9, 0.0)], "D": [(0, 2e-4), (9, 0.0)]})
    assert len(set(re.findall(r'stroke-dasharray="([^"]+)"', drawn.svg))) == 2
    (x0, y0), (x1, y1) = (written(drawn)[name] for name in "GD")
    assert x0 == x1 and abs(y0 - y1) >= charts.LINE and max(y0, y1) <= charts.HEIGHT - charts.BOTTOM + 5
    (end,) = {float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn.svg)}
    assert end < x0 < charts.WIDTH - charts.LETTER
    assert "G" not in written(charts.chart("loss", {"G": [(0, 1.0)]}))  # its title says it


def test_names_stand_in_the_order_of_the_ends_of_the_curves():
    drawn = written(charts.chart("x", {"low": [(9, 0.0)], "high": [(9, 5.0)], "mid": [(9, 4.9)], "less": [(9, 0.1)]}))
    heights = [drawn[name][1] for name in ("high", "mid", "less", "low")]
    assert all(below - above >= charts.LINE - 0.1 for above, below in itertools.pairwise(heights))
    assert heights[0] > 0 and heights[-1] < charts.HEIGHT - charts.BOTTOM + 5


@pytest.mark.parametrize(
    ("last", "shown"),
    [(120, ["step 0", "60", "120"]), (125, ["step 0", "62", "125"]), (1, ["step 0", "1"]), (2, ["step 0", "1", "2"])],
)
def test_the_axis_says_that_it_is_of_steps_and_ends_at_the_last(last, shown):
    drawn = charts.chart("x", {"a": [(last, 1.0)]})
    below = [text for text, (_, y) in written(drawn).items() if y == charts.HEIGHT - 8]
    assert sorted(below) == sorted(shown)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (330, 420, [350, 375, 400]),
        (2, 30, [3, 10, 30]),
        (1e-4, 3e3, [1e-4, 1e-2, 1, 1e2]),
        (0.58, 0.6, [0.58, 0.585, 0.59, 0.595, 0.6]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_round_numbers_too(low, high, expected):
    found = charts.log_ticks(math.log10(low), math.log10(high))
    assert [10**value for value in found] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0005, "5e-4"), (0.000475, "4.75e-4"), (0, "0"), (12345.6, "12,346"), (1e7, "1e+07"), (-0.25, "-0.25")],
)
def test_numbers_are_short(value, text):
    assert charts.short(value) == text


def test_ticks_that_lie_close_together_are_told_apart():
    assert charts.told_apart([1.1352, 1.1354, 1.1356]) == ["1.1352", "1.1354", "1.1356"]
    assert charts.told_apart([0, 0.5, 1]) == ["0", "0.5", "1"] and charts.told_apart([1000.1, 1000.2]) == ["1,000"] * 2
