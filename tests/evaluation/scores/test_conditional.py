"""Whether samples are of the class that was asked for: known confusions, and classes that are known Gaussians."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from datasets import Classes, Images
from evaluation.inputs.reference import Reference, fid_statistics
from evaluation.inputs.sampling import Generated, Given
from evaluation.results import report
from evaluation.scores import conditional
from evaluation.scores.conditional import Asked

NAMES = ("a", "b", "c")


class Known:
    """A classifier of which it is known what it makes of real images."""

    def __init__(self):
        self.examined = {"split": "test", "accuracy": 0.9, "class_share": []}


def logits(*answers):
    return F.one_hot(torch.tensor(answers), 3).float()


def images_of(labels, classes=NAMES):
    return Images(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels, classes)


def reference(features):
    return Reference(features, fid_statistics(features))


def test_class_accuracy_and_the_most_frequent_confusion():
    asked = Asked(torch.tensor([0, 0, 0, 0, 1, 1, 2]), NAMES)
    found = conditional.accuracy(asked, logits(0, 0, 2, 2, 1, 0, 2), Known(), NAMES)["class_accuracy"]
    assert found["mean"] == pytest.approx(4 / 7)
    assert found["classes"] == {"a": 0.5, "b": 0.5, "c": 1.0}
    assert found["confusion"] == {"asked": "a", "taken_for": "c", "share": 0.5}


def test_without_mistakes_there_is_no_confusion_and_a_class_that_was_not_asked_for_has_no_accuracy():
    found = conditional.accuracy(Asked(torch.tensor([0, 2]), NAMES), logits(0, 2), Known(), NAMES)["class_accuracy"]
    real = {"split": "test", "accuracy": 0.9}
    assert found == {"mean": 1.0, "classes": {"a": 1.0, "c": 1.0}, "confusion": None, "real": real}


def test_class_accuracy_is_null_with_the_reason_where_no_classifier_knows_the_classes():
    asked = Asked(torch.tensor([0]), NAMES)
    assert conditional.accuracy(asked, logits(0), None, NAMES)["class_accuracy"]["mean"] is None
    found = conditional.accuracy(asked, logits(0), Known(), ("x", "y", "z"))["class_accuracy"]
    assert found == {"mean": None, "reason": "the classifier knows other classes"}
    assert conditional.accuracy(None, logits(0), Known(), NAMES) == {}


def standardised(count, dimension, seed):
    """Features whose mean is 0 and whose covariance is the unit matrix, exactly."""
    x = np.random.default_rng(seed).standard_normal((count, dimension))
    x -= x.mean(0)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(x.T)))
    return torch.from_numpy(x @ whitening.T)


def test_intra_fid_of_classes_that_are_known_gaussians():
    """Between N(m, s^2 I) and N(0, I) in d dimensions: |m|^2 + d (s - 1)^2."""
    moved = [(1.0, 1.0), (0.0, 3.0), (2.0, 1.5)]  # what each class's samples have as mean in each dimension, and scale
    real = torch.cat([standardised(40, 4, seed) for seed in range(3)]).float()
    samples = torch.cat([mean + scale * standardised(50, 4, 9 + i) for i, (mean, scale) in enumerate(moved)]).float()
    labels, real_labels = torch.arange(3).repeat_interleave(50), torch.arange(3).repeat_interleave(40)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    asked = Asked(labels[order], NAMES)
    found = conditional.within(asked, samples[order], reference(real), images_of(real_labels))["intra_fid"]
    expected = [4 * mean**2 + 4 * (scale - 1) ** 2 for mean, scale in moved]
    assert list(found["classes"].values()) == pytest.approx(expected, rel=1e-4)
    assert found["mean"] == pytest.approx(sum(expected) / 3, rel=1e-4)
    assert found["worst"]["class"] == "c"


def test_intra_fid_is_null_with_the_reason_where_a_class_has_too_few():
    real, labels = torch.randn(12, 3), torch.arange(12) % 3
    few = conditional.within(Asked(torch.tensor([0] * 9 + [1, 1, 2]), NAMES), real, reference(real), images_of(labels))
    assert few["intra_fid"] == {
        "mean": None,
        "reason": "class c has 1 samples, but more than 3 are needed, the number of dimensions of the features",
    }
    enough = conditional.within(Asked(labels, NAMES), real, reference(real), images_of(labels))
    assert enough["intra_fid"]["mean"] == pytest.approx(0, abs=1e-4)
    other = conditional.within(Asked(labels, NAMES), real, reference(real), images_of(labels, ("x", "y", "z")))
    assert "other classes" in other["intra_fid"]["reason"]
    assert conditional.within(None, real, reference(real), images_of(labels)) == {}


def test_a_source_is_asked_for_labels_that_depend_on_no_batch():
    classes = Classes(NAMES, (1, 2, 1))
    source = Generated(torch.nn.Identity(), 2, 5, torch.device("cpu"), classes=classes)
    assert torch.equal(conditional.asked_of(source, 100).labels, classes.labels(5, 0, 100))
    assert conditional.asked_of(Given(torch.zeros(3, 1, 1, 1)), 3) is None


def test_what_is_said_and_written_of_the_classes():
    intra = {"mean": 12.25, "worst": {"class": "b", "fid": 20.0}, "classes": {"a": 4.5, "b": 20.0}}
    accuracy = {"mean": 0.975, "classes": {}, "confusion": {"asked": "a", "taken_for": "b", "share": 0.05}}
    accuracy["real"] = {"split": "test", "accuracy": 0.99}
    assert conditional.lines({"class_accuracy": accuracy, "intra_fid": intra}) == [
        "class accuracy 97.50%, of real test images 99.00% (most often wrong: a taken for b, 5.0%)",
        "intra-FID 12.25 (worst: b, 20.00)",
    ]
    unknown = {"class_accuracy": {"mean": None, "reason": "x"}, "intra_fid": {"mean": None, "reason": "y"}}
    assert conditional.lines(unknown) == ["class accuracy unknown, because x", "intra-FID unknown: y"]
    assert {"class_accuracy", "intra_fid", "worst_class"} <= set(report.COLUMNS)
