"""DiffAugment's transforms, by hand and by finite differences."""

import pytest
import torch
from torch import tensor

from models import augmentation
from models.augmentation import AUGMENTATIONS, TRANSFORMS, Augmented, augment, draw
from settings.config import FIELDS

# Two pixels high and wide, red, green and blue: of the first pixel the channels' mean is 0.2, of the image 0.05.
IMAGE = tensor([[[[0.6, -0.2], [0.0, 0.4]], [[0.2, -0.2], [0.0, -0.2]], [[-0.2, -0.2], [0.0, 0.4]]]]).double()
P = {p: tensor(p, dtype=torch.float64) for p in (0.0, 0.3, 1.0)}


def u(first, second=0.0):
    return tensor([[first, second]], dtype=torch.float64)


def applied(count, seed=0, p=1.0):
    return draw(count, P[p], torch.Generator().manual_seed(seed)).double()


def test_the_names_of_the_flag_are_those_of_the_transforms():
    assert FIELDS["augment"].metadata["choices"] == ("none", *AUGMENTATIONS)


def test_brightness_adds_between_minus_and_plus_a_half():
    assert torch.allclose(augmentation.brightness(IMAGE, u(0.0)), IMAGE - 0.5)
    assert torch.allclose(augmentation.brightness(IMAGE, u(0.75)), IMAGE + 0.25)


def test_saturation_scales_the_distance_from_the_channels_mean():
    doubled = augmentation.saturation(IMAGE, u(1.0))  # the limit: factor 2
    assert torch.allclose(doubled[0, :, 0, 0], tensor([1.0, 0.2, -0.6]).double())
    assert torch.allclose(doubled[0, :, 1, 1], tensor([0.6, -0.6, 0.6]).double())
    grey = augmentation.saturation(IMAGE, u(0.0))
    assert torch.allclose(grey, tensor([[0.2, -0.2], [0.0, 0.2]]).double().expand(1, 3, 2, 2))
    assert torch.equal(augmentation.saturation(IMAGE[:, :1], u(0.9)), IMAGE[:, :1])  # one channel


def test_contrast_scales_the_distance_from_the_images_mean():
    mean = 0.6 / 12  # of the twelve numbers above
    assert torch.allclose(augmentation.contrast(IMAGE, u(0.0)), mean + (IMAGE - mean) / 2)
    assert torch.allclose(augmentation.contrast(IMAGE, u(1.0)), mean + (IMAGE - mean) * 1.5)
    assert torch.allclose(augmentation.contrast(IMAGE, u(0.5)), IMAGE)


def test_an_image_is_shifted_by_whole_pixels_and_zeros_come_in():
    x = tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2).expand(3, 1, 2, 2)
    down = augmentation.shifted(x, tensor([1, 0, -1]), 2).flatten(1)
    assert down.tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 0, 0]]
    right = augmentation.shifted(x, tensor([1, -1, 2]), 3).flatten(1)
    assert right.tolist() == [[0, 1, 0, 3], [2, 0, 4, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("side", "most"), [(2, 0), (8, 1), (32, 4), (48, 6)])
def test_translation_goes_up_to_an_eighth_both_ways_each_as_often(side, most):
    count = 2 * most + 1
    steps = (torch.arange(count) + 0.5) / count
    x = torch.zeros(count, 1, side, side)
    x[:, :, side // 2, side // 2] = 1  # a dot in the middle
    moved = augmentation.translation(x, torch.stack([steps, steps.flip(0)], dim=1)).nonzero()[:, 2:] - side // 2
    assert moved.tolist() == [[d, -d] for d in range(-most, most + 1)]
    ends = (
        augmentation.translation(x[:1].expand(2, -1, -1, -1), tensor([[0.0, 1 - 2**-24], [1 - 2**-24, 0.0]])).nonzero()[
            :, 2:
        ]
        - side // 2
    )
    assert ends.tolist() == [[-most, most], [most, -most]]


def test_cutout_zeroes_a_square_of_half_the_side_clipped_at_the_border():
    x = torch.ones(1, 2, 2, 2)
    for (row, column), number in {(0.0, 0.0): 0, (0.0, 0.9): 1, (0.9, 0.0): 2, (0.6, 0.6): 3}.items():
        left = augmentation.cutout(x, u(row, column)).flatten(2)  # one pixel of four
        assert left.tolist() == [[[float(i != number) for i in range(4)]] * 2]
    x = torch.ones(1, 1, 8, 8)
    middle, corner, end = (augmentation.cutout(x, u(place, place))[0, 0] == 0 for place in (0.5, 0.0, 0.999))
    assert middle[2:6, 2:6].all() and middle.sum() == 16
    assert corner[:2, :2].all() and corner.sum() == 4
    assert end[6:, 6:].all() and end.sum() == 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_are_those_of_finite_differences(name, channels):
    drawn = applied(2)
    x = torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, (name,), drawn), x)
    assert torch.autograd.gradgradcheck(lambda x: augment(x, (name,), drawn).square(), x)


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 32), (3, 48)])
def test_all_together_keep_shape_and_dtype_change_every_image_and_each_by_itself(channels, side):
    x, drawn = torch.rand(6, channels, side, side).double() * 2 - 1, applied(6)
    out = augment(x, tuple(AUGMENTATIONS), drawn)
    assert out.shape == x.shape and out.dtype == x.dtype and out.isfinite().all()
    assert (out != x).flatten(1).any(dim=1).all()
    alone = [augment(x[i : i + 1], tuple(AUGMENTATIONS), drawn[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(alone), out)


def test_at_p_0_nothing_changes_and_at_p_1_every_transform_is_applied():
    x = torch.rand(5, 3, 8, 8)
    assert torch.equal(augment(x, tuple(AUGMENTATIONS), applied(5, p=0.0).float()), x)
    assert (draw(1000, P[1.0], torch.Generator())[..., 0] == 1).all()


def test_each_transform_is_applied_with_probability_p_by_itself():
    gates = applied(20_000, p=0.3)[..., 0]
    assert gates.shape[1] == len(TRANSFORMS) == 5
    assert torch.allclose(gates.mean(0), tensor(0.3).double(), atol=0.012)  # beyond 3.5 standard errors
    assert torch.allclose(torch.corrcoef(gates.t()), torch.eye(5).double(), atol=0.03)


def test_the_published_ranges_are_met():
    drawn = applied(20_000)
    x = torch.zeros(20_000, 1, 2, 2).double()
    x[:, :, 0, 0] = 1  # mean 0.25, distance of the first pixel 0.75
    added = augmentation.brightness(x, drawn[:, 0, 1:])[:, 0, 1, 1]
    factor = (augmentation.contrast(x, drawn[:, 2, 1:])[:, 0, 0, 0] - 0.25) / 0.75
    for found, low, high in ((added, -0.5, 0.5), (factor, 0.5, 1.5)):
        assert low <= found.min() < low + 0.01 and high - 0.01 < found.max() <= high
        assert found.mean().item() == pytest.approx((low + high) / 2, abs=0.01)


def test_a_gradient_through_a_cutout_is_zero_where_it_cuts():
    D = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    drawn = applied(4).float()
    x = torch.randn(4, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(Augmented(D, ("cutout",), drawn)(x).sum(), x)
    kept = augment(torch.ones(4, 1, 8, 8), ("cutout",), drawn)
    torch.testing.assert_close(gradient, kept * D[1].weight.view(1, 1, 8, 8))
