"""Pictures: where each pixel of a grid goes, the frames of the animation, the file of the curves."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from evaluation.plots import plot_neighbours, plot_scores
from training.plots import animate, plot_curves
from utils import plots


def constant_images(values, channels, side):
    shape = (len(values), channels, side, side)
    return torch.tensor(values, dtype=torch.uint8).view(len(values), -1, 1, 1).expand(shape)


@pytest.mark.parametrize(("side", "cell"), [(8, 64), (16, 64), (32, 64), (48, 96), (64, 64), (128, 128)])
def test_small_images_are_enlarged_by_a_whole_factor_to_64_pixels_or_more(side, cell):
    image = plots.grid(constant_images([7], 1, side))
    assert image.size == (cell + 4, cell + 4)  # a gap of 2 pixels on each side


def test_images_lie_in_rows_from_the_top_left_with_white_gaps():
    array = np.asarray(plots.grid(constant_images([10, 20, 30, 40, 50], 1, 64)))
    assert array.shape == (2 * 66 + 2, 3 * 66 + 2)  # 5 images: 3 columns, 2 rows
    expected = np.full_like(array, 255)
    for value, top, left in ((10, 2, 2), (20, 2, 68), (30, 2, 134), (40, 68, 2), (50, 68, 68)):
        expected[top : top + 64, left : left + 64] = value
    assert np.array_equal(array, expected)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (7, 3, 3), (10, 4, 3)])
def test_the_grid_is_as_square_as_the_count_allows(count, columns, rows):
    assert plots.grid(constant_images([0] * count, 1, 64)).size == (66 * columns + 2, 66 * rows + 2)


def test_the_columns_can_be_chosen():
    assert plots.grid(constant_images([0] * 6, 1, 64), columns=6).size == (6 * 66 + 2, 68)


def test_each_pixel_becomes_a_square_of_its_own_colour():
    images = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    picture = plots.grid(images)
    assert picture.mode == "RGB"
    array = np.asarray(picture)[2:-2, 2:-2]
    pixels = images[0].permute(1, 2, 0).numpy()
    assert np.array_equal(array, pixels.repeat(8, axis=0).repeat(8, axis=1))


def test_grey_images_make_a_grey_picture():
    picture = plots.grid(constant_images([3], 1, 8))
    assert picture.mode == "L"
    assert picture.getpixel((2, 2)) == 3


def run_with_grids(run_dir, shades):
    """A run directory with one grid of a flat grey for each step."""
    (run_dir / "samples").mkdir()
    (run_dir / "plots").mkdir()
    for step, shade in shades.items():
        Image.new("L", (6, 4), shade).save(run_dir / "samples" / f"step_{step:06d}.png")


def frames_of(path):
    """(grey value, milliseconds) of each frame."""
    frames = []
    with Image.open(path) as animation:
        for i in range(animation.n_frames):
            animation.seek(i)
            frames.append((animation.convert("L").getpixel((3, 2)), animation.info["duration"]))
    return frames


def test_the_animation_shows_the_grids_in_the_order_of_their_steps_and_rests_on_the_last(tmp_path):
    run_with_grids(tmp_path, {1_000_000: 200, 0: 10, 200_000: 100})
    target = animate(tmp_path)
    assert target == tmp_path / "plots" / "samples.gif"
    assert frames_of(target) == [(10, 150), (100, 150), (200, 2000)]


def test_a_single_grid_makes_a_single_frame(tmp_path):
    run_with_grids(tmp_path, {0: 10})
    with Image.open(animate(tmp_path)) as animation:
        assert animation.n_frames == 1


def test_a_long_run_is_thinned_to_60_frames_from_the_first_to_the_last(tmp_path):
    run_with_grids(tmp_path, {step: 2 * step for step in range(101)})
    shades = [shade for shade, _ in frames_of(animate(tmp_path))]
    assert len(shades) == 60
    assert (shades[0], shades[-1]) == (0, 200)
    assert shades == sorted(set(shades))


def test_a_run_without_grids_has_no_animation(tmp_path):
    (tmp_path / "samples").mkdir()
    assert animate(tmp_path) is None


LINE = {"loss_D": 1.2, "loss_G": 0.3, "real_logits": 0.1, "fake_logits": -0.2, "grad_norm_D": 2.0, "grad_norm_G": 0.5}
LINE |= {"grad_norm_input": 1.5, "accuracy_D": 0.75}


@pytest.mark.parametrize(
    ("stats", "panels"),
    [
        ([{"step": 1, **LINE}], 4),
        ([{"step": 1, **dict.fromkeys(LINE)}], 4),
        ([{"step": step, **LINE} for step in range(1, 40)], 4),
        ([{"step": 1, **LINE}, {"step": 1, "inception_score": 8.0, "fid": 20.0, "protocol": "the protocol"}], 6),
        ([{"step": 1, **LINE, "loss_D": None}, {"step": 2, **LINE}], 4),
    ],
    ids=["one line", "only nulls", "many lines", "with scores", "a null among numbers"],
)
def test_the_curves_are_a_png_with_a_panel_for_each_kind_of_statistic(tmp_path, monkeypatch, stats, panels):
    figures, close = [], plt.close
    monkeypatch.setattr(plt, "close", figures.append)
    (tmp_path / "plots").mkdir()
    target = plot_curves(tmp_path, stats, "a title")
    assert target == tmp_path / "plots" / "curves.png"
    with Image.open(target) as picture:
        assert picture.format == "PNG"
        assert 400 < picture.width < 2000 and 200 < picture.height < 1200
    (figure,) = figures
    assert len(figure.axes) == panels
    assert figure.get_suptitle() == ("a title\nscores: the protocol" if panels == 6 else "a title")
    curves = {line.get_label(): list(zip(*line.get_data())) for axis in figure.axes for line in axis.lines}
    assert curves["D(fake)"] == [(s["step"], s["fake_logits"]) for s in stats if s.get("fake_logits") is not None]
    close(figure)


# ---- Evaluations ---------------------------------------------------------------------------------------------------


def scored(step, fid, name="modern"):
    return {
        "inception_score": {"mean": 2.0, "std": 0.1},
        "fid": fid,
        "kid": {"mean": -0.1, "std": 0.1},
        "precision": 0.5,
        "recall": 0.25,
        "memorisation": {"nearer": 0.4},
        "protocol": {"name": name, "step": step},
    }


def test_scores_over_steps_have_a_line_for_each_protocol_and_a_star_at_the_best(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    results = [scored(step, fid, name) for name in ("modern", "paper") for step, fid in ((0, 90), (5, 3), (9, 4))]
    path = plot_scores(tmp_path / "scores.png", results, lambda protocol: f"label of {protocol['name']}")
    assert path.exists()
    (figure,) = kept
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels[:5] == ["Inception Score", "FID", "KID", "precision", "recall"]
    assert all(axis.get_xlabel() == "step (updates of G)" for axis in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["label of modern", "label of paper"]
    fid = figure.axes[1]
    lines = [container.lines[0].get_xydata().tolist() for container in fid.containers]
    assert lines == [[[0, 90], [5, 3], [9, 4]]] * 2
    (star,) = [line for line in fid.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[5, 3]]
    plt.close("all")


def test_neighbours_stand_right_of_their_samples(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    samples = constant_images([10, 20, 30, 40], 1, 64)
    training = torch.stack([constant_images([v + 1, v + 2], 1, 64) for v in (10, 20, 30, 40)])
    distances = torch.tensor([[1.5, 2], [2.5, 3], [3.5, 4], [4.5, 5]])
    assert plot_neighbours(tmp_path / "neighbours.png", samples, training, distances).exists()
    (figure,) = kept
    for axis, values, far in zip(figure.axes, ((10, 20), (30, 40)), (["1.5", "2.5"], ["3.5", "4.5"])):
        picture = np.asarray(axis.images[0].get_array())
        cells = picture[34::66, 34::66][:2, :3]
        assert cells.tolist() == [[v, v + 1, v + 2] for v in values]
        assert [label.get_text() for label in axis.get_yticklabels()] == far
        assert [label.get_text() for label in axis.get_xticklabels()] == ["sample", "1", "2"]
    plt.close("all")
