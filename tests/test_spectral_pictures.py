"""What docs/spectral_normalization.md shows: known answers of the functions that it is measured with."""

import math
import sys

import pytest
import torch
from helpers import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import spectral


def test_the_half_axes_of_the_ellipse_are_the_singular_values():
    W = torch.tensor([[1.6, 0.9], [0.1, 0.9]], dtype=torch.float64)
    _, image, (sigma, _, _) = spectral.ellipse(W)
    values, lengths = torch.linalg.svdvals(W), image.norm(dim=0)
    assert lengths.max().item() == pytest.approx(values[0].item(), rel=1e-4)
    assert lengths.min().item() == pytest.approx(values[1].item(), rel=1e-3)
    assert sigma.item() == pytest.approx(values[0].item(), rel=1e-12)


def test_power_iteration_closes_in_like_the_ratio_of_the_singular_values():
    W, first = spectral.with_singular_values([2.0, 1.0, 0.1])
    tangents, errors = spectral.closing_in(W, first, 12)
    assert torch.allclose(tangents[5:] / tangents[4:-1], torch.full((7,), 0.25, dtype=torch.float64), rtol=1e-3)
    assert (errors[6] / errors[5]).item() == pytest.approx(1 / 16, rel=1e-2)


def test_a_u_that_is_kept_finds_a_weight_that_stands_still():
    W, _ = spectral.with_singular_values([2.0, 1.0])
    kept, new = (spectral.following([W] * 20, 1, carried) for carried in (True, False))
    assert kept[-1].item() == pytest.approx(1, abs=1e-9) and new.min() < 0.99


def test_the_gradient_has_no_component_along_the_weight_and_keeps_all_others():
    found = spectral.gradients()
    assert abs(spectral.along(found["g"], found["W"])) > 0.1
    assert abs(spectral.along(found["dW"], found["W"])) < 1e-12
    before, after = spectral.components(found)
    assert torch.allclose(before[1:], after[1:], atol=1e-9)
    inner = (found["g"] * found["W_SN"]).sum()
    assert torch.allclose(before[0] - after[0], inner, atol=1e-9)


def test_a_pixel_is_in_as_many_windows_as_the_kernel_allows():
    assert spectral.largest_gain({"kind": "Conv2d 3x3"}) == pytest.approx(3)
    assert spectral.largest_gain({"kind": "Conv2d 4x4, stride 2"}) == pytest.approx(math.sqrt(4))
