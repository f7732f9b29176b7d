"""Memorisation and collapse: generators that copy, collapse or drop modes are caught, honest ones are not."""

import pytest
import torch

from datasets import spaced
from evaluation.scores import diagnostics


def gaussian(count, dim=4, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


TRAINING, UNSEEN = gaussian(300, seed=1), gaussian(200, seed=2)


def memorised(samples, training, unseen=None):
    return diagnostics.memorisation(samples, training, diagnostics.unseen_distances(training, unseen), "these", "those")


def test_nearest_neighbours_are_those_of_the_whole_distance_matrix(monkeypatch):
    monkeypatch.setattr(diagnostics, "CHUNK", 7)
    queries, images = gaussian(20).double(), gaussian(30, seed=1).double()
    apart = (queries[:, None] - images).square().sum(2).sqrt()
    distances, indices = diagnostics.nearest(queries, images, 3)
    assert torch.allclose(distances, apart.sort().values[:, :3])
    assert torch.equal(indices, apart.argsort()[:, :3])


def test_among_themselves_none_is_its_own_neighbour(monkeypatch):
    monkeypatch.setattr(diagnostics, "CHUNK", 7)
    points = (
        torch.tensor([[0.0], [1.0], [3.0], [7.0]]).repeat(5, 1) + torch.arange(5).repeat_interleave(4)[:, None] * 100
    )
    distances, indices = diagnostics.nearest(points[:18], points, own=torch.arange(18))
    assert distances[:4].flatten().tolist() == [1, 1, 2, 4]
    assert indices[:4].flatten().tolist() == [1, 0, 1, 2]
    assert (distances > 0).all()


def test_samples_of_the_same_distribution_are_as_near_as_unseen_images():
    found, _ = memorised(gaussian(400), TRAINING, UNSEEN)
    assert found["nearer"] == pytest.approx(0.5, abs=0.06)
    assert found["distance_of_samples"] == pytest.approx(found["distance_of_unseen"], rel=0.15)


def test_copies_are_nearer_than_all_unseen_images():
    found, neighbours = memorised(TRAINING[:100] + 1e-3, TRAINING, UNSEEN)
    assert found["nearer"] == pytest.approx(1, abs=0.01)
    assert found["distance_of_samples"] < 0.01 < found["distance_of_unseen"]
    assert torch.equal(neighbours.training[:, 0], neighbours.samples)


def test_nearer_is_the_share_of_pairs_by_definition():
    samples, training = gaussian(50), TRAINING
    found, _ = memorised(samples, training, UNSEEN)
    of_samples = torch.cdist(samples, training).min(1).values
    of_unseen = torch.cdist(UNSEEN, training).min(1).values
    pairs = (of_samples[:, None] < of_unseen).double().mean().item()
    assert found["nearer"] == pytest.approx(pairs, abs=1e-3)


def test_without_test_images_training_images_without_themselves_stand_for_them():
    found, _ = memorised(gaussian(400), TRAINING)
    assert found["nearer"] == pytest.approx(0.5, abs=0.06)
    copies, _ = memorised(TRAINING + 1e-3, TRAINING)
    assert copies["nearer"] == pytest.approx(1, abs=0.01)


def test_the_pictured_neighbours_are_the_nearest_samples_and_any():
    samples = gaussian(50)
    _, neighbours = memorised(samples, TRAINING, UNSEEN)
    apart = torch.cdist(samples, TRAINING)
    assert neighbours.samples.tolist() == [
        *apart.min(1).values.argsort()[:8].tolist(),
        *spaced(50, 8).tolist(),
    ]
    assert torch.equal(neighbours.training, apart.argsort()[neighbours.samples][:, :5])


def test_diversity_compares_equal_numbers_of_samples_and_real_images():
    samples = 0.5 * gaussian(900)
    found = diagnostics.diversity(samples, TRAINING)
    part = samples[::3]  # as many as there are training images
    assert found["distance_between_samples"] == pytest.approx(
        torch.cdist(part, part).fill_diagonal_(torch.inf).min(1).values.median().item(), rel=1e-5
    )
    assert found["distance_between_samples"] == pytest.approx(0.5 * found["distance_between_real"], rel=0.15)


def test_sorted_images_are_not_judged_by_the_first_of_them(monkeypatch):
    monkeypatch.setattr(diagnostics, "QUERIES", 100)
    training = torch.cat([1e-3 * gaussian(300), gaussian(900, seed=1)])  # the first class is all alike
    found = diagnostics.diversity(gaussian(1200, seed=2), training)
    assert found["distance_between_real"] == pytest.approx(found["distance_between_samples"], rel=0.5)
    samples = torch.cat([1e-3 * gaussian(300, seed=3), gaussian(900, seed=4)])
    found, neighbours = memorised(samples, training)
    assert found["nearer"] == pytest.approx(0.5, abs=0.1)
    assert neighbours.samples.max() > 900
    assert spaced(10, 4).tolist() == [0, 2, 5, 7] and spaced(3, 5).tolist() == [0, 1, 2]


LABELS = torch.arange(3).repeat_interleave(torch.tensor([5, 3, 2]))


def test_the_share_of_each_class_is_beside_that_of_training_images():
    answers = torch.eye(3)[[0, 0, 0, 1]]
    assert diagnostics.class_shares(answers, LABELS, ("a", "b", "c")) == {
        "class_share": {"a": 0.75, "b": 0.25, "c": 0},
        "class_share_training": {"a": 0.5, "b": 0.3, "c": 0.2},
        "classes_missing": [],
    }


@pytest.mark.parametrize(
    ("counts", "missing"),
    [
        ((500, 300, 200), []),
        ((650, 350, 0), ["c"]),
        ((990, 5, 5), ["b", "c"]),
        ((550, 370, 80), []),
        ((6, 4, 0), []),  # chance can leave so few samples without one
    ],
)
def test_a_class_is_missing_where_chance_would_not_leave_so_few(counts, missing):
    answers = torch.eye(3).repeat_interleave(torch.tensor(counts), dim=0)
    assert diagnostics.class_shares(answers, LABELS, "abc")["classes_missing"] == missing


def result(nearer=0.4, apart=1.0, recall=0.5, missing=()):
    return {
        "recall": recall,
        "memorisation": {"nearer": nearer, "real": "training images", "unseen": "test images"},
        "diversity": {"distance_between_samples": apart, "distance_between_real": 1.0},
        "classes_missing": list(missing),
    }


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"nearer": 0.8}, ["may copy training images"]),
        ({"apart": 0.01, "recall": 0, "nearer": 1.0}, ["has collapsed"]),  # what follows from it is not said too
        ({"missing": "c"}, ["almost no samples of class c"]),
        ({"missing": "bc"}, ["almost no samples of class b, c"]),
        ({"recall": 0.01}, ["recall 0.010"]),
        ({"recall": 0.01, "nearer": 0.9}, ["may copy", "recall 0.010"]),
    ],
)
def test_the_warnings_say_what_is_wrong_in_words(changed, words):
    found = diagnostics.warnings(result(**changed))
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found))


def test_unlabelled_data_are_warned_of_all_but_classes():
    unlabelled = {key: value for key, value in result(nearer=0.9).items() if "class" not in key}
    assert len(diagnostics.warnings(unlabelled)) == 1
