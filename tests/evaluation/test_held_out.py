"""What real held-out images get, and that nothing which depends on no sample is computed twice."""

import json

import pytest
import torch
from evaluation_results import noise_images
from helpers import Pixels

from evaluation.evaluator import Evaluator, Wanted
from evaluation.inputs import features, sampling
from evaluation.inputs.reference import Reference
from evaluation.inputs.sampling import Given
from evaluation.scores import diagnostics, manifold, metrics

CPU = torch.device("cpu")
FACTS = {"step": 5, "ema": True, "seed": 3}


@pytest.fixture(autouse=True)
def pixels(monkeypatch):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)  # for time
    monkeypatch.setattr(features, "load_inception", lambda *args, **kwargs: Pixels())


def scored(images, real):
    """The scores of images against real ones."""
    found, of_real = (part.flatten(1).float() / 255 for part in (images, real))
    reference = Reference(of_real, metrics.fid_statistics(of_real))
    logits = Pixels()(images)[1].float()
    scores = {"inception_score": metrics.inception_score(logits), "fid": metrics.fid(found, reference)}
    return scores | {"kid": metrics.kid(found, reference)} | metrics.neighbour_scores(found, reference)


def test_held_out_images_are_scored_as_samples_once_for_all_checkpoints(folder_with_test, monkeypatch):
    train, test = noise_images(150), noise_images(40, seed=9)
    results = []
    for seed in (3, 4):
        evaluator = Evaluator(folder_with_test, train, CPU)
        samples = Given(noise_images(200, seed=seed).images)
        results.append(evaluator.evaluate(samples, FACTS, ("modern", "paper"), num_samples=200)[0])
        monkeypatch.setattr("evaluation.held_out.scores", None)  # from here on, only what was kept
    (modern, paper), again = results
    assert [result["held_out"] for result in again] == [modern["held_out"], paper["held_out"]]
    assert (modern["held_out"]["what"], modern["held_out"]["num"]) == ("test images", 40)
    expected = scored(test.images, train.images)
    for name in ("fid", "kid", "precision", "recall", "density", "coverage"):
        assert modern["held_out"][name] == pytest.approx(expected[name], rel=1e-4)
    means = [scores["inception_score"]["mean"] for scores in (modern["held_out"], expected)]
    assert means[0] == pytest.approx(means[1], rel=0.01)  # its splits are in another order
    assert (paper["held_out"]["what"], paper["held_out"]["num"]) == ("training images", 20)
    assert json.loads(json.dumps(modern)) == modern


def test_without_held_out_images_it_is_said_why(folder, monkeypatch):
    source = Given(noise_images(120, seed=1).images)
    (result,), _ = Evaluator(folder, noise_images(150), CPU).evaluate(source, FACTS, ("modern",))
    assert set(result["held_out"]) == {"what", "reason"}
    assert "has no test images" in result["held_out"]["reason"]
    monkeypatch.setattr("evaluation.inputs.reference.has_test_split", lambda config: True)
    monkeypatch.setattr("evaluation.inputs.reference.load_split", lambda config, split: noise_images(40, seed=9))

    def broken(*parts):
        raise ValueError("no such luck")

    monkeypatch.setattr("evaluation.held_out.scores", broken)
    (result,), _ = Evaluator(folder, noise_images(150), CPU).evaluate(source, FACTS, ("modern",))
    assert result["held_out"] == {"what": "test images", "reason": "they could not be scored: no such luck"}


def test_the_images_of_a_data_set_are_looked_at_once(folder_with_test, monkeypatch):
    looked, extract = [], sampling.extract

    def counted(networks, source, count, device, label):
        looked.append(label)
        return extract(networks, source, count, device, label)

    for module in ("evaluator", "inputs.reference"):
        monkeypatch.setattr(f"evaluation.{module}.extract", counted)
    evaluator = Evaluator(folder_with_test, noise_images(150), CPU)
    evaluator.evaluate(Given(noise_images(120, seed=1).images), FACTS, ("modern", "test"))
    assert sorted(looked) == ["samples", "test images", "train images"]


def test_radii_of_samples_are_made_once_for_protocols_of_one_count_and_none_for_quick_scores(
    folder_with_test, monkeypatch
):
    labels, radii = [], manifold.radii
    monkeypatch.setattr(manifold, "radii", lambda part, label: labels.append((label, len(part))) or radii(part, label))
    evaluator = Evaluator(folder_with_test, noise_images(40), CPU)
    source = Given(noise_images(40, seed=1).images)
    evaluator.evaluate(source, FACTS, ("modern", "test"), wanted=Wanted(diagnostics=False, neighbours=False))
    assert labels == []
    evaluator.evaluate(source, FACTS, ("modern", "test"))
    (result, of_test), _ = evaluator.evaluate(source, FACTS, ("modern", "test"))
    assert result["protocol"]["num_samples"] == of_test["protocol"]["num_samples"] == 40
    of_samples = [count for label, count in labels if label == "neighbours of samples"]
    assert len(of_samples) == 2 + 2  # each evaluation's, and those of the held-out images of both protocols
    assert [label for label, _ in labels].count("neighbours of real images") == 2


def test_how_far_unseen_images_are_is_found_once_for_all_checkpoints_and_starts(folder_with_test, monkeypatch):
    found, plain = [], diagnostics.unseen_distances
    monkeypatch.setattr(diagnostics, "unseen_distances", lambda *parts: found.append(len(parts[1])) or plain(*parts))
    memories = []
    for seed in (3, 4):
        evaluator = Evaluator(folder_with_test, noise_images(150), CPU)
        for other in (0, 10):
            samples = Given(noise_images(200, seed=seed + other).images)
            (result,), _ = evaluator.evaluate(samples, FACTS, ("modern",), num_samples=200)
            memories.append(result["memorisation"])
    assert found == [40]
    assert len({memory["distance_of_unseen"] for memory in memories}) == 1
    unseen, training = (
        images.images.flatten(1).float() / 255 for images in (noise_images(40, seed=9), noise_images(150))
    )
    expected = torch.cdist(unseen, training).min(1).values.median().item()
    assert memories[0]["distance_of_unseen"] == pytest.approx(expected, rel=1e-5)
