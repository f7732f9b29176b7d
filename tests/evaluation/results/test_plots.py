"""Pictures of scores: the lines over a run's steps, and samples beside their nearest neighbours."""

import numpy as np
import torch
from helpers import constant_images

from evaluation.results.plots import plot_neighbours, plot_scores


def scored(step, fid, name="modern"):
    return {
        "inception_score": {"mean": 2.0, "std": 0.1},
        "fid": fid,
        "kid": {"mean": -0.1, "std": 0.1},
        "precision": 0.5,
        "recall": 0.25,
        "density": 0.75,
        "coverage": 0.5,
        "memorisation": {"nearer": 0.4},
        "protocol": {"name": name, "step": step},
    }


def test_scores_over_steps_have_a_line_for_each_protocol_and_a_star_at_the_best(tmp_path, figures):
    points = (0, 90), (5, 3), (9, 4)
    groups = {f"label of {name}": [scored(*point, name) for point in points] for name in ("modern", "paper")}
    groups["label of paper"][0]["fid"] = 80  # or its line would be that of modern, which is drawn once
    path = plot_scores(tmp_path / "scores.png", groups)
    assert path.exists()
    (figure,) = figures
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels[:3] == ["Inception Score (more is better)", "FID (less is better)", "KID (less is better)"]
    assert [label.split()[0] for label in labels[3:7]] == ["precision", "recall", "density", "coverage"]
    assert all(axis.get_xlabel() == "step (updates of G)" for axis in figure.axes)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["label of modern", "label of paper"]
    fid = figure.axes[1]
    lines = [container.lines[0].get_xydata().tolist() for container in fid.containers]
    assert lines == [[[0, 90], [5, 3], [9, 4]], [[0, 80], [5, 3], [9, 4]]]
    (star,) = [line for line in fid.lines if line.get_marker() == "*"]
    assert star.get_xydata().tolist() == [[5, 3]]


def test_what_real_images_get_is_a_labelled_line_and_scores_that_older_files_lack_are_left_out(tmp_path, figures):
    old = {"inception_score": {"mean": 2.0, "std": 0.1}, "fid": 9.0, "protocol": {"name": "modern", "step": 2}}
    real = {"inception_score": {"mean": 9.5, "std": 1}, "fid": 0.5, "kid": {"mean": 0.0, "std": 0}, "precision": 1.0}
    plot_scores(tmp_path / "scores.png", {"modern": [old, scored(4, 3.0) | {"held_out": real | {"recall": 0.75}}]})
    (figure,) = figures
    for axis, value in zip(figure.axes, (9.5, 0.5, 0.0, 1.0, 0.75)):
        (dashed,) = [line for line in axis.lines if line.get_linestyle() == "--"]
        assert set(dashed.get_ydata()) == {value}
        assert "real test images" in [text.get_text() for text in axis.texts]
    assert len(figure.axes[2].containers[0].lines[0].get_xydata()) == 1  # KID, of step 4 alone
    assert figure.legends[0].get_texts()[0].get_text() == "modern"


def test_neighbours_stand_right_of_their_samples(tmp_path, figures):
    samples = constant_images([10, 20, 30, 40], 1, 64)
    training = torch.stack([constant_images([v + 1, v + 2], 1, 64) for v in (10, 20, 30, 40)])
    distances = torch.tensor([[1.5, 2], [2.5, 3], [3.5, 4], [4.5, 5]])
    assert plot_neighbours(tmp_path / "neighbours.png", samples, training, distances).exists()
    (figure,) = figures
    for axis, values, far in zip(figure.axes, ((10, 20), (30, 40)), (["1.5", "2.5"], ["3.5", "4.5"])):
        picture = np.asarray(axis.images[0].get_array())
        cells = picture[34::66, 34::66][:2, :3]
        assert cells.tolist() == [[v, v + 1, v + 2] for v in values]
        assert [label.get_text() for label in axis.get_yticklabels()] == far
        assert [label.get_text() for label in axis.get_xticklabels()] == ["sample", "1", "2"]
