"""Scores: known answers of each formula, the counts of each protocol, and how sure a score is."""

import numpy as np
import pytest
import torch
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from evaluation import metrics
from evaluation.reference import Reference
from utils.errors import UserError


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def reference_of(features):
    return Reference(features, metrics.fid_statistics(features))


def fid(samples, real):
    return metrics.fid(samples, reference_of(real))


def kid(samples, real):
    return metrics.kid(samples, reference_of(real))


def precision_recall(samples, real):
    return metrics.precision_recall(samples, reference_of(real))


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
def test_kid_takes_100_subsets_of_1000_or_of_as_many_as_there_are(monkeypatch, samples, real, size):
    asked = {}

    def fake(*parts, **kwargs):
        asked.update(kwargs)
        return {"kernel_inception_distance_mean": 0.5, "kernel_inception_distance_std": 0.25}

    monkeypatch.setattr(metric_kid, "kid_features_to_metric", fake)
    score = kid(gaussian(samples, 2), gaussian(real, 2))
    assert (asked["kid_subsets"], asked["kid_subset_size"]) == (100, size)
    assert score == {"mean": 0.5, "std": 0.25}


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
    assert list(kid(found, real).values()) == list(expected.values())
    expected = metric_prc.prc_features_to_metric(found, real, verbose=False)
    assert precision_recall(found, real) == {name: expected[name] for name in ("precision", "recall")}


# ---- Protocols -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_real", "expected"),
    [
        *(("modern", real, (50_000, 50_000)) for real in (50_000, 60_000)),
        ("paper", 10_000, (5_000, 50_000)),
        ("test", 10_000, (10_000, 10_000)),
        # smaller data sets scale them: digits' 1,498 and 299 images
        ("modern", 1498, (1498, 1498)),
        ("paper", 299, (150, 1495)),
        ("test", 299, (299, 299)),
        ("paper", 10, (10, 50)),  # an Inception Score needs ten
    ],
)
def test_the_counts_of_the_protocols(name, num_real, expected):
    assert metrics.sample_counts(name, num_real) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("modern", (5000, 5000)), ("paper", (500, 5000)), ("test", (1000, 1000))]
)
def test_a_given_number_of_samples_stands_for_the_50000(name, expected):
    assert metrics.sample_counts(name, 60_000, num_samples=5000) == expected
    assert metrics.sample_counts(name, 60_000, num_samples=5000, available=700) == tuple(min(700, n) for n in expected)


def test_a_full_protocol_has_no_departures_and_a_scaled_one_names_each():
    assert metrics.departures("modern", 50_000, 50_000, 50_000) == []
    assert metrics.departures("paper", 5000, 50_000, 10_000) == []
    assert metrics.departures("test", 10_000, 10_000, 10_000) == []
    assert metrics.departures("modern", 1498, 1498, 1498) == [
        "1,498 samples, not 50,000",
        "1,498 real images, not 50,000",
    ]
    assert metrics.departures("paper", 5000, 1000, 8000) == [
        "1,000 samples for the Inception Score, not 50,000",
        "8,000 real images, not 10,000",
    ]


# ---- How sure a score is -------------------------------------------------------------------------------------------


def test_the_bootstrap_of_a_mean_is_the_textbook_interval():
    values = gaussian(400, 1).double()
    found = metrics.bootstrap(lambda chosen: chosen.mean().item(), values, 2000, "mean")
    error = values.std().item() / 20
    assert found["std"] == pytest.approx(error, rel=0.06)
    assert found["low"] == pytest.approx(values.mean().item() - 1.96 * error, abs=0.15 * error)
    assert found["high"] == pytest.approx(values.mean().item() + 1.96 * error, abs=0.15 * error)
    assert (found["level"], found["resamples"]) == (0.95, 2000)


def test_the_bootstrap_bounds_how_fid_varies_between_sets_of_samples_and_does_not_move_it():
    real = reference_of(gaussian(2000, 4, seed=1))

    def score(samples):
        return metrics.fid(samples, real)

    truth = np.std([score(1.2 * gaussian(500, 4, seed)) for seed in range(100, 200)], ddof=1)
    samples = 1.2 * gaussian(500, 4)
    found = metrics.bootstrap(score, samples, 100, "FID")
    assert truth < found["std"] < 1.6 * truth
    assert found["low"] < score(samples) < found["high"]
    assert found == metrics.bootstrap(score, samples, 100, "FID")  # the same resamples each time


def test_fid_infinity_takes_the_bias_of_few_samples_away():
    # Samples and real images of one distribution: the true FID against these real images is nearly 0.
    real = reference_of(gaussian(50_000, 16, seed=1))
    samples = gaussian(2000, 16)
    plain = metrics.fid(samples, real)
    found = metrics.fid_infinity(samples, real)
    assert plain > 0.04
    assert abs(found["value"]) < plain / 4
    assert 0 < found["std"] < plain
    assert (found["sizes"][0], found["sizes"][-1], len(found["sizes"])) == (200, 2000, 15)


def test_fid_infinity_is_the_intercept_of_the_line_through_1_over_n(monkeypatch):
    monkeypatch.setattr(metrics, "fid", lambda features, reference: 7 + 300 / len(features))
    found = metrics.fid_infinity(torch.zeros(2000, 4), None)
    assert found["value"] == pytest.approx(7, rel=1e-9)
    assert found["std"] == pytest.approx(0, abs=1e-6)


def test_fid_infinity_refuses_fewer_samples_than_its_dimensions_allow():
    with pytest.raises(UserError, match="needs 640 samples or more with features of 32 dimensions, not 639"):
        metrics.fid_infinity(gaussian(639, 32), reference_of(gaussian(200, 32)))
    metrics.fid_infinity(gaussian(640, 32), reference_of(gaussian(200, 32)))
