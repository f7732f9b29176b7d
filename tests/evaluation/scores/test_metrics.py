"""Scores: known answers of each formula, and the counts of each protocol."""

import pytest
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from evaluation.inputs.reference import Reference
from evaluation.scores import metrics


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def reference_of(features):
    return Reference(features, metrics.fid_statistics(features))


def fid(samples, real):
    return metrics.fid(samples, reference_of(real))


def kid(samples, real):
    return metrics.kid(samples, reference_of(real))


def precision_recall(samples, real):
    found = metrics.neighbour_scores(samples, reference_of(real))
    return {name: found[name] for name in ("precision", "recall")}


# ---- Scores --------------------------------------------------------------------------------------------------------


def test_fid_of_equal_covariances_is_the_squared_distance_of_the_means():
    real = gaussian(100, 4)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.5])
    assert fid(real + shift, real) == pytest.approx(25.25, rel=1e-5)


@pytest.mark.parametrize("factor", [2.0, 0.5, 3.0])
def test_fid_of_a_scaled_distribution_is_its_closed_form(factor):
    real = gaussian(100, 4)
    # Tr(S + f^2 S - 2 f S) + |(f - 1) mu|^2
    expected = (factor - 1) ** 2 * (real.double().T.cov().trace() + real.double().mean(0).square().sum()).item()
    assert fid(factor * real, real) == pytest.approx(expected, rel=1e-5)


def test_fid_of_two_diagonal_gaussians_is_the_squared_distance_of_their_deviations():
    # Columns of +-s are uncorrelated with a known variance: four points in two dimensions, repeated.
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(25, 1)
    unbiased = 100 / 99
    found = fid(corners * torch.tensor([1.0, 5]), corners * torch.tensor([3.0, 2]))
    assert found == pytest.approx(((3 - 1) ** 2 + (5 - 2) ** 2) * unbiased, rel=1e-6)


def test_identical_features_have_fid_0_and_precision_and_recall_1():
    real = gaussian(100, 8)
    assert fid(real.clone(), real) == pytest.approx(0, abs=1e-4)
    assert precision_recall(real.clone(), real) == {"precision": 1, "recall": 1}


def test_kid_is_the_unbiased_estimate_with_the_cubic_kernel():
    found, real = gaussian(60, 8), gaussian(60, 8, seed=1) + 0.5
    within, between = [(part @ part.T / 8 + 1) ** 3 for part in (found, real)], (found @ real.T / 8 + 1) ** 3
    # Fewer than 1,000 images: each subset is all of them.
    expected = sum((K.sum() - K.trace()) / (60 * 59) for K in within) - 2 * between.mean()
    score = kid(found, real)
    assert score["mean"] == pytest.approx(expected.item(), rel=1e-4)
    assert score["std"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("samples", "real", "size"), [(1200, 1100, 1000), (1200, 60, 60), (70, 1100, 70)])
def test_kid_takes_the_subsets_of_torch_fidelity_of_1000_or_as_many_as_there_are(monkeypatch, samples, real, size):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 5)
    parts = gaussian(samples, 8), gaussian(real, 8, seed=1) + 0.5
    expected = metric_kid.kid_features_to_metric(*parts, kid_subsets=5, kid_subset_size=size, verbose=False)
    assert list(kid(*parts).values()) == pytest.approx(list(expected.values()), rel=1e-4)  # its sums are float32


def test_kid_of_large_features_is_that_of_float64():
    found, real = 30 * gaussian(200, 64).abs(), 30 * gaussian(200, 64, seed=1).abs() + 0.1
    x, y = found.double(), real.double()
    within, between = [(part @ part.T / 64 + 1) ** 3 for part in (x, y)], (x @ y.T / 64 + 1) ** 3
    expected = sum((K.sum() - K.trace()) / (200 * 199) for K in within) - 2 * between.mean()
    assert kid(found, real)["mean"] == pytest.approx(expected.item(), rel=1e-9)


def test_kid_against_the_same_real_images_takes_their_kernels_once(monkeypatch):
    real, kernels, kernel = reference_of(gaussian(60, 8, seed=1)), [], metrics.kernel
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)
    monkeypatch.setattr(metrics, "kernel", lambda x, y: kernels.append(1) or kernel(x, y))
    first = metrics.kid(gaussian(50, 8), real)
    assert len(kernels) == 6
    assert metrics.kid(gaussian(50, 8), real) == first and len(kernels) == 10
    assert metrics.kid(gaussian(51, 8), real) == kid(gaussian(51, 8), real.features)  # other subsets, of other counts


def test_distant_features_have_precision_and_recall_0():
    real = gaussian(100, 8)
    assert precision_recall(real + 100, real) == {"precision": 0, "recall": 0}


def test_samples_of_one_mode_of_two_are_precise_and_recall_half():
    first, second = gaussian(100, 2), gaussian(100, 2, seed=1) + 100
    assert precision_recall(first, torch.cat([first, second])) == {"precision": 1, "recall": 0.5}


@pytest.mark.parametrize("classes", [2, 10])
def test_the_inception_score_of_sure_and_even_answers_is_the_number_of_classes(classes):
    logits = 50 * torch.eye(classes).repeat(100_000 // classes, 1)
    score = metrics.inception_score(logits)
    assert score["mean"] == pytest.approx(classes, rel=1e-3)  # each of the 10 splits is even within chance
    assert score["std"] < 0.01


@pytest.mark.parametrize("logits", [torch.zeros(200, 10), 50 * torch.eye(10)[[3] * 200]], ids=["unsure", "one class"])
def test_the_inception_score_of_equal_answers_is_1(logits):
    score = metrics.inception_score(logits)
    assert score["mean"] == pytest.approx(1, abs=1e-9)
    assert score["std"] == pytest.approx(0, abs=1e-9)


def test_the_scores_are_torch_fidelitys_own():
    found, real, logits = gaussian(120, 6), gaussian(130, 6, seed=1) * 1.3 + 0.2, 3 * gaussian(120, 10, seed=2)
    for shuffle in (True, False):
        expected = metric_isc.isc_features_to_metric(logits, splits=10, shuffle=shuffle)
        score = metrics.inception_score(logits, shuffle)
        assert list(score.values()) == [expected["inception_score_mean"], expected["inception_score_std"]]
    statistics = [metric_fid.fid_features_to_statistics(part) for part in (found, real)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(found, real) == expected
    expected = metric_kid.kid_features_to_metric(found, real, kid_subsets=100, kid_subset_size=120, verbose=False)
    assert list(kid(found, real).values()) == pytest.approx(list(expected.values()), rel=1e-5, abs=1e-6)
    expected = metric_prc.prc_features_to_metric(found, real, verbose=False)
    assert precision_recall(found, real) == {name: expected[name] for name in ("precision", "recall")}
