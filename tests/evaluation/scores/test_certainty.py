"""How sure a score is: the FID of weighted samples, intervals beside the truth, and FID at infinity."""

import numpy as np
import pytest
import torch

from evaluation.inputs.reference import Reference
from evaluation.scores import certainty, metrics
from utils.errors import UserError


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def reference_of(features):
    return Reference(features, metrics.fid_statistics(features))


def repeated(features, weights):
    """The features with each as often as each of the weightings says."""
    return [features.repeat_interleave(torch.from_numpy(counts.astype(int)), 0) for counts in weights]


def degenerate(count, dim, seed=0):
    """Features of which one is constant and one a sum of others."""
    found = gaussian(count, dim, seed).relu()
    found[:, 0] = 2.5
    found[:, 1] = found[:, 2] + found[:, 3]
    return found


@pytest.mark.parametrize("make", [gaussian, degenerate])
@pytest.mark.parametrize(("samples", "real"), [(400, 300), (30, 300), (400, 30), (20, 30), (10, 10)])
def test_the_fid_of_weighted_samples_is_torch_fidelitys_of_repeated_ones(make, samples, real):
    features, reference = 1.3 * make(samples, 40) + 0.1, reference_of(make(real, 40, seed=1))
    weights = np.concatenate([np.ones((1, samples), np.int16), certainty.resampled(samples, 3)])
    found = certainty.fids(features, reference, weights, "")
    assert found == pytest.approx([metrics.fid(part, reference) for part in repeated(features, weights)], rel=1e-6)


def test_the_fid_of_weighted_samples_does_not_depend_on_how_many_are_looked_at_at_once(monkeypatch):
    features, reference = gaussian(300, 6), reference_of(gaussian(200, 6, seed=1))
    weights = certainty.resampled(300, 4)
    whole = certainty.fids(features, reference, weights, "")
    monkeypatch.setattr(certainty, "CHUNK", 37)
    assert certainty.fids(features, reference, weights, "") == pytest.approx(whole, rel=1e-6)


def test_constant_real_images_leave_the_distance_and_the_samples_own_variance():
    features, reference = gaussian(200, 5), reference_of(torch.full((50, 5), 2.0))
    expected = (features.double().mean(0) - 2).square().sum() + features.double().T.cov().trace()
    assert certainty.fids(features, reference, np.ones((1, 200)), "")[0] == pytest.approx(expected.item(), rel=1e-9)


def test_a_resample_draws_as_many_as_there_are_the_same_ones_each_time():
    counts = certainty.resampled(1000, 50)
    assert (counts.sum(1) == 1000).all()
    assert (counts == 0).mean() == pytest.approx(np.exp(-1), abs=0.01)
    assert (counts == certainty.resampled(1000, 50)).all()
    assert (counts[:20] == certainty.resampled(1000, 20)).all()


def test_the_interval_of_a_mean_is_the_textbook_one():
    values = gaussian(400, 1).double().numpy()[:, 0]
    found = certainty.interval(values.mean(), certainty.resampled(400, 2000) @ values / 400)
    error = values.std(ddof=1) / 20
    assert found["std"] == pytest.approx(error, rel=0.06)
    assert found["low"] == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert (found["level"], found["resamples"]) == (0.95, 2000)


@pytest.mark.parametrize("name", ["fid", "kid"])
def test_the_bootstrap_bounds_how_a_score_varies_between_sets_of_samples_and_does_not_move_it(name, monkeypatch):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 3)
    monkeypatch.setattr(metrics, "KID_SUBSET_SIZE", 200)  # of 500 samples: in a subset or not, they vary alike
    real = reference_of(gaussian(2000, 4, seed=1))
    scores = {"fid": metrics.fid, "kid": lambda *parts: metrics.kid(*parts)["mean"]}
    interval = getattr(certainty, f"{name}_interval")
    truth = np.std([scores[name](1.2 * gaussian(500, 4, seed), real) for seed in range(100, 200)], ddof=1)
    samples = 1.2 * gaussian(500, 4)
    score = scores[name](samples, real)
    found = interval(score, samples, real, 100)
    assert truth < found["std"] < 1.6 * truth
    assert found["low"] < score < found["high"]
    assert found == interval(score, samples, real, 100)  # the same resamples each time


def test_kid_of_weighted_samples_is_that_of_repeated_ones_of_which_equal_ones_do_not_meet():
    features, real = gaussian(60, 8), gaussian(60, 8, seed=1) + 0.5  # each subset is all of them
    weights = certainty.resampled(60, 3)
    found = metrics.kernel_sums(features, reference_of(real), weights, "").means()
    y = real.double()
    for score, part in zip(found, repeated(features.double(), weights)):
        own, other, across = (((a @ b.T) / 8 + 1) ** 3 for a, b in ((part, part), (y, y), (part, y)))
        distinct = (part[:, None] != part).any(2)
        expected = own[distinct].mean() + other[~torch.eye(60, dtype=torch.bool)].mean() - 2 * across.mean()
        assert score == pytest.approx(expected.item(), rel=1e-9)


def test_the_interval_of_kid_is_finite_where_resamples_leave_small_subsets_empty():
    features, reference = gaussian(400, 4), reference_of(gaussian(10, 4, seed=1))
    found = certainty.kid_interval(0.0, features, reference, 30)
    assert all(np.isfinite(found[name]) for name in ("low", "high", "std"))


def test_fid_infinity_takes_the_bias_of_few_samples_away():
    # Samples and real images of one distribution: the true FID against these real images is nearly 0.
    real = reference_of(gaussian(50_000, 16, seed=1))
    samples = gaussian(2000, 16)
    plain = metrics.fid(samples, real)
    found = certainty.fid_infinity(samples, real)
    assert plain > 0.04
    assert abs(found["value"]) < plain / 4
    assert 0 < found["std"] < plain
    assert (found["sizes"][0], found["sizes"][-1], len(found["sizes"])) == (200, 2000, 15)


def test_fid_infinity_is_the_intercept_of_the_line_through_1_over_n(monkeypatch):
    monkeypatch.setattr(certainty, "fids", lambda x, reference, weights, label: 7 + 300 / weights.sum(1))
    found = certainty.fid_infinity(torch.zeros(2000, 4), None)
    assert found["value"] == pytest.approx(7, rel=1e-9)
    assert found["std"] == pytest.approx(0, abs=1e-6)


def test_fid_infinity_refuses_fewer_samples_than_its_dimensions_allow():
    with pytest.raises(UserError, match="needs at least 640 samples with features of 32 dimensions, not 639"):
        certainty.fid_infinity(gaussian(639, 32), reference_of(gaussian(200, 32)))
    certainty.fid_infinity(gaussian(640, 32), reference_of(gaussian(200, 32)))
