"""Curves as SVG: every point at its place, round ticks, and words for who cannot see them."""

import re

import pytest

from training.reporting import charts


def test_a_curve_goes_through_its_points():
    drawn = charts.chart("loss", {"D": [(0, 1.0), (50, 3.0), (100, 2.0)]})
    (line,) = re.findall(r'<path stroke="var\(--c0\)" d="M([\d., ]+)"', drawn.svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    assert (x0, x2) == (charts.LEFT, charts.WIDTH - charts.RIGHT) and x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1) and y1 < y0  # larger is higher
    assert drawn.caption == "loss at step 100: D 2" and 'aria-label="loss at step 100: D 2"' in drawn.svg


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    drawn = charts.chart("norm", {"a": [(0, 0.01), (1, 0.1), (2, 1.0)]}, log=True)
    line = re.findall(r'd="M([\d., ]+)"', drawn.svg)[0]
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


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0005, "5e-4"), (0.000475, "4.75e-4"), (0, "0"), (12345.6, "12,346"), (1e7, "1e+07"), (-0.25, "-0.25")],
)
def test_numbers_are_short(value, text):
    assert charts.short(value) == text
