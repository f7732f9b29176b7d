"""Lines and walks in latent space: where they start and end, that they stay on the sphere, and the pictures of them."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluation import drawing


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_lines_are_quarter_circles_between_normal_latents():
    z = drawing.lines(seed=3, count=5, z_dim=6).view(5, drawing.LINE_STEPS, 6)
    start, end = normal(2, 5, 6, seed=3)
    assert torch.equal(z[:, 0], start) and torch.allclose(z[:, -1], end, atol=1e-6)
    assert torch.allclose(z[:, 3], math.cos(math.pi / 6) * start + math.sin(math.pi / 6) * end, atol=1e-6)


def test_an_arc_stays_on_the_sphere_and_goes_at_one_speed():
    start, end = nn.functional.normalize(normal(2, 1, 8), dim=2)
    share = torch.linspace(0, 1, 11).unsqueeze(1)
    points = drawing.arc(start.expand(11, -1), end.expand(11, -1), share)
    assert torch.allclose(points.norm(dim=1), torch.ones(11), atol=1e-6)
    steps = (points[1:] - points[:-1]).norm(dim=1)
    assert torch.allclose(steps, steps[:1].expand(10), atol=1e-5)
    assert torch.allclose(points[[0, -1]], torch.cat([start, end]), atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0])
def test_where_there_is_no_arc_the_way_is_straight(factor):
    start = normal(1, 4)
    (middle,) = drawing.arc(start, factor * start, torch.tensor([[0.5]]))
    assert torch.allclose(middle, (1 + factor) / 2 * start[0], atol=1e-6)


@pytest.mark.parametrize(("count", "frames"), [(4, 12), (3, 7), (1, 2)])
def test_a_walk_is_closed_and_goes_by_way_of_its_corners(count, frames):
    corners = normal(count, 16)
    z, classes = drawing.walk(corners, frames)
    assert z.shape == (frames, 16) and classes is None
    at = {round(i * frames / count): i for i in range(count) if i * frames % count == 0}
    assert all(torch.allclose(z[frame], corners[i], atol=1e-5) for frame, i in at.items()) and at
    lengths = corners.norm(dim=1)
    assert (z.norm(dim=1) >= lengths.min() - 1e-4).all() and (z.norm(dim=1) <= lengths.max() + 1e-4).all()


def test_a_walk_on_the_unit_sphere_comes_back_as_fast_as_it_left():
    z, _ = drawing.walk(nn.functional.normalize(normal(4, 16)), 12)
    steps = (z.roll(-1, 0) - z).norm(dim=1).view(4, 3)  # the last one leads to the start
    assert torch.allclose(steps, steps[:, :1].expand(4, 3), atol=1e-5) and steps.min() > 0.1


def test_classes_change_along_straight_lines_beside_the_walk():
    _, classes = drawing.walk(normal(2, 16), 8, torch.eye(2))
    assert torch.allclose(classes[:, 0], torch.tensor([1, 0.75, 0.5, 0.25, 0, 0.25, 0.5, 0.75]))
    assert torch.allclose(classes.sum(1), torch.ones(8))


class Shades(nn.Module):
    """An image of a single shade, z's first number; the label's weight is added where there is one."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z, classes=None):
        shade = z[:, 0] * self.scale + (0 if classes is None else classes[:, 1])
        return shade.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_images_come_in_order_in_blocks_with_or_without_classes():
    z = torch.linspace(-1, 1, 150).unsqueeze(1)
    images = drawing.images_of(Shades(), z)
    assert images.shape == (150, 1, 2, 2) and images[:, 0, 0, 0].tolist() == ((z[:, 0] + 1) * 127.5).round().tolist()
    lit = drawing.images_of(Shades(), torch.zeros(3, 1), torch.tensor([[1, 0], [0.5, 0.5], [0, 1]]))
    assert lit[:, 0, 0, 0].tolist() == [128, 191, 255]


def test_a_walks_animation_has_its_frames_enlarged(tmp_path):
    images = torch.arange(5, dtype=torch.uint8).mul(50).view(5, 1, 1, 1).expand(5, 1, 8, 8)
    drawing.save_walk(tmp_path / "walk.gif", images)
    drawing.save_walk(tmp_path / "small.gif", images, 1)
    with Image.open(tmp_path / "walk.gif") as gif, Image.open(tmp_path / "small.gif") as small:
        assert gif.size == (64, 64) and small.size == (8, 8) and gif.n_frames == 5 and gif.info["loop"] == 0
        for frame in range(5):
            gif.seek(frame)
            assert np.asarray(gif.convert("L")).tolist() == np.full((64, 64), 50 * frame).tolist()
            assert gif.info["duration"] == drawing.FRAME_MS
