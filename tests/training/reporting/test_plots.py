"""Pictures of a run: the frames of its animation, the panels of its curves."""

import pytest
from PIL import Image, ImageChops

from training.reporting.plots import CAPTION, animate, captioned, plot_curves


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


def animation_of(run_dir):
    animate(run_dir)
    return run_dir / "plots" / "samples.gif"


def test_the_animation_shows_the_grids_in_the_order_of_their_steps_and_rests_on_the_last(tmp_path):
    run_with_grids(tmp_path, {1_000_000: 200, 0: 10, 200_000: 100})
    assert frames_of(animation_of(tmp_path)) == [(10, 150), (100, 150), (200, 2000)]


def test_each_frame_has_its_step_beneath_it(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "plots").mkdir()
    for step in (0, 1_000_000):
        Image.new("RGB", (120, 40), "blue").save(tmp_path / "samples" / f"step_{step:06d}.png")
    with Image.open(animation_of(tmp_path)) as animation:
        assert animation.size == (120, 40 + CAPTION)
        for frame, step in enumerate((0, 1_000_000)):
            animation.seek(frame)
            expected = captioned(Image.new("RGB", (120, 40), "blue"), f"step {step:,}")
            assert ImageChops.difference(animation.convert("RGB"), expected).convert("L").getextrema()[1] < 16


def test_a_single_grid_makes_a_single_frame(tmp_path):
    run_with_grids(tmp_path, {0: 10})
    with Image.open(animation_of(tmp_path)) as animation:
        assert animation.n_frames == 1


def test_a_long_run_is_thinned_to_60_frames_from_the_first_to_the_last(tmp_path):
    run_with_grids(tmp_path, {step: 2 * step for step in range(101)})
    shades = [shade for shade, _ in frames_of(animation_of(tmp_path))]
    assert len(shades) == 60
    assert (shades[0], shades[-1]) == (0, 200)
    assert shades == sorted(set(shades))


def test_a_run_without_grids_has_no_animation(tmp_path):
    (tmp_path / "samples").mkdir()
    assert not animation_of(tmp_path).exists()


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
def test_the_curves_are_a_png_with_a_panel_for_each_kind_of_statistic(tmp_path, figures, stats, panels):
    (tmp_path / "plots").mkdir()
    plot_curves(tmp_path, stats, "a title")
    with Image.open(tmp_path / "plots" / "curves.png") as picture:
        assert picture.format == "PNG"
        assert 400 < picture.width < 2000 and 200 < picture.height < 1200
    (figure,) = figures
    assert len(figure.axes) == panels
    assert figure.get_suptitle() == ("a title\nscores: the protocol" if panels == 6 else "a title")
    curves = {line.get_label(): list(zip(*line.get_data())) for axis in figure.axes for line in axis.lines}
    assert curves.get("D(fake)", []) == [
        (s["step"], s["fake_logits"]) for s in stats if s.get("fake_logits") is not None
    ]
