"""The evaluator: one pass, every protocol, and a result that holds everything it depends on."""

import json
import threading

import pytest
import torch
from evaluation_results import noise_images
from helpers import Pixels
from torch import nn

from datasets.sources import load_split
from evaluation.evaluator import Evaluator, Wanted
from evaluation.inputs import features
from evaluation.inputs.reference import Reference
from evaluation.inputs.sampling import Generated, Given
from evaluation.results import report
from evaluation.scores import metrics
from settings.config import Config
from utils.errors import UserError

CPU = torch.device("cpu")
FACTS = {"step": 5, "ema": True, "seed": 3}


@pytest.fixture(autouse=True)
def few_subsets(monkeypatch):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)  # for time


@pytest.fixture
def pixels(monkeypatch):
    monkeypatch.setattr(features, "load_inception", lambda *args, **kwargs: Pixels())


class Endless(Given):
    """Known images as if they were a generator's: there is no end of them, and their order is kept."""

    def __init__(self, images):
        super().__init__(images)
        self.count = None


def test_the_real_images_themselves_have_perfect_scores_and_are_found_to_be_copies(pixels, folder):
    train = noise_images(300)
    (result,), _ = Evaluator(folder, train, CPU).evaluate(Given(train.images), FACTS, ("modern",))
    assert result["fid"] == pytest.approx(0, abs=1e-5)
    assert (result["precision"], result["recall"], result["coverage"]) == (1, 1, 1)
    assert result["density"] == pytest.approx(1, abs=0.01)
    assert result["protocol"]["density_coverage_neighbours"] == 5
    assert result["memorisation"]["nearer"] > 0.95
    assert any("may copy" in sentence for sentence in result["warnings"])


def test_a_collapsed_generator_is_caught(pixels, folder):
    class One(nn.Module):
        def forward(self, z):
            return torch.tensor([0.1, 0.2, -0.3, 0.4]).expand(len(z), 4).view(-1, 1, 2, 2)

    source = Generated(One(), 4, 0, CPU)
    (result,), _ = Evaluator(folder, noise_images(300), CPU).evaluate(source, FACTS, ("modern",))
    assert result["recall"] < 0.05
    (sentence,) = result["warnings"]
    assert "collapsed" in sentence
    assert "warning: the generator has collapsed" in report.summary([result])


def test_several_protocols_are_scored_in_one_pass_each_on_its_own_samples_and_images(pixels, folder_with_test):
    train, test, samples = noise_images(150), noise_images(40, seed=9), noise_images(200, seed=3).images
    source = Endless(samples)
    evaluator = Evaluator(folder_with_test, train, CPU)
    blocks = []
    source.block = lambda number: blocks.append(number) or Given.block(source, number)
    results, _ = evaluator.evaluate(source, FACTS, ("modern", "paper", "test"), num_samples=200)
    assert sorted(set(blocks[:4])) == [0, 1, 2, 3]
    scored = {}
    for result in results:
        p = result["protocol"]
        scored[p["name"]] = (p["num_samples"], p["inception_score_samples"], p["num_real"], p["split"])
    assert scored == {
        "modern": (200, 200, 150, "train"),
        "paper": (20, 200, 40, "test"),
        "test": (40, 40, 40, "test"),
    }
    for result, count, real in zip(results, (200, 20, 40), (train, test, test)):
        features = real.images.flatten(1).float() / 255
        reference = Reference(features, metrics.fid_statistics(features))
        assert result["fid"] == metrics.fid(samples[:count].flatten(1).float() / 255, reference)
    assert results[0]["memorisation"]["unseen"] == "test images"
    # Alone, a protocol gives what it gives beside others.
    (alone,), _ = Evaluator(folder_with_test, train, CPU).evaluate(
        Endless(samples), FACTS, ("paper",) * 2, num_samples=200
    )
    assert alone == results[1]


def test_every_part_that_may_take_long_without_a_bar_is_said(pixels, folder, monkeypatch, capsys):
    class Late(threading.Timer):
        """A timer whose time is over when it starts."""

        def start(self):
            self.function()

    monkeypatch.setattr("utils.console.threading.Timer", Late)
    samples = Given(noise_images(120, seed=1).images)
    Evaluator(folder, noise_images(150), CPU).evaluate(samples, FACTS, ("modern",), wanted=Wanted(bootstrap=2))
    said = capsys.readouterr().err
    for what in ("hash of the images", "covariance of 150 features", "covariance of 120 features", "root of the real"):
        assert f"computing the {what}" in said or f"computing a {what}" in said
    for score in ("FID", "Inception Score"):
        assert f"computing the {score} ...\n" in said
    assert "saving the features of the train images ...\n" in said


def test_the_paper_scores_its_ten_sets_in_the_order_of_the_samples(pixels, folder_with_test):
    evaluator = Evaluator(folder_with_test, noise_images(150), CPU)
    samples = noise_images(200, seed=3).images
    results, _ = evaluator.evaluate(Endless(samples), FACTS, ("modern", "paper"), num_samples=200)
    logits = Pixels()(samples)[1].float()
    for result, shuffle in zip(results, (True, False)):
        assert result["inception_score"] == pytest.approx(metrics.inception_score(logits, shuffle), rel=1e-6)
        assert result["protocol"]["inception_score_shuffled"] is shuffle


def test_too_few_test_images_do_not_stand_in_the_way_of_the_training_images(pixels, folder, monkeypatch):
    monkeypatch.setattr("evaluation.inputs.reference.has_test_split", lambda config: True)
    monkeypatch.setattr("evaluation.inputs.reference.load_split", lambda config, split: noise_images(5, seed=9))
    said = []
    evaluator = Evaluator(folder, noise_images(150), CPU, said.append)
    (result,), _ = evaluator.evaluate(Given(noise_images(120, seed=1).images), FACTS, ("modern",), num_samples=120)
    assert result["memorisation"]["unseen"] == "other training images"
    assert "not compared with test images: scores need at least 10 real images" in said[0]


def test_sorted_images_are_shuffled_where_a_part_of_them_is_scored(pixels, folder_with_test):
    dark, light = (torch.full((100, 1, 2, 2), value, dtype=torch.uint8) for value in (10, 240))
    folder_of_samples = torch.cat([dark, light])
    evaluator = Evaluator(folder_with_test, noise_images(150), CPU)
    results, _ = evaluator.evaluate(Given(folder_of_samples), FACTS, ("modern", "paper"), num_samples=200)
    scores = [result["inception_score"]["mean"] for result in results]
    assert scores[0] == pytest.approx(scores[1], rel=0.02)  # sorted, each set of the paper's would be of one kind: 1.0
    assert scores[1] > 1.01
    fid = [result["fid"] for result in results]
    assert fid[1] < 1.5 * fid[0]  # the paper's FID takes 20 of them, of both kinds
    assert all(result["protocol"]["samples_shuffled"] for result in results)
    (whole,), _ = evaluator.evaluate(Given(folder_of_samples), FACTS, ("modern",), num_samples=200)
    assert not whole["protocol"]["samples_shuffled"]


def test_a_protocol_without_its_images_is_refused_at_once(pixels, folder):
    evaluator = Evaluator(folder, noise_images(150), CPU)
    evaluator.plans(("modern",))
    with pytest.raises(UserError, match="has no test images: a folder's splits are its subfolders train and test"):
        evaluator.plans(("modern", "paper"))


def test_the_protocol_holds_everything_that_a_score_depends_on(pixels, folder):
    import torchvision

    evaluator = Evaluator(folder, noise_images(150), CPU)
    (result,), neighbours = evaluator.evaluate(Given(noise_images(120).images), FACTS, ("modern",), num_samples=120)
    assert set(result) >= {"inception_score", "fid", "kid", "precision", "recall", "warnings", "protocol"}
    assert set(result["inception_score"]) == set(result["kid"]) == {"mean", "std"}
    protocol = result["protocol"]
    expected = {"step": 5, "ema": True, "seed": 3, "num_samples": 120, "num_real": 150, "split": "train"}
    expected |= {"name": "modern", "departures": ["120 samples, not 50,000", "150 real images, not 50,000"]}
    expected |= {"dataset": "folder", "features": "pixels", "features_sha256": "0" * 64, "resize": "none"}
    expected |= {"kid_subset_size": 120, "inception_score_splits": 10, "features_warning": None, "device": "cpu"}
    assert {name: protocol[name] for name in expected} == expected
    assert protocol["data_sha256"] == noise_images(150).sha256()
    assert "uint8" in protocol["quantisation"]
    assert protocol["versions"]["torch"] == torch.__version__.split("+")[0]
    assert protocol["versions"]["torchvision"] == torchvision.__version__.split("+")[0]
    assert {"python", "numpy", "scipy", "torch-fidelity"} <= set(protocol["versions"])
    assert json.loads(json.dumps(result)) == result
    samples, training, distances = neighbours
    assert samples.shape == (16, 1, 2, 2) and training.shape == (16, 5, 1, 2, 2) and distances.shape == (16, 5)


def test_scores_during_training_leave_out_what_costs_most(pixels, folder):
    evaluator = Evaluator(folder, noise_images(150), CPU)
    source = Given(noise_images(120).images)
    (result,), nearest = evaluator.evaluate(
        source, FACTS, ("modern",), wanted=Wanted(diagnostics=False, neighbours=False)
    )
    assert nearest is None
    assert not {"precision", "memorisation", "warnings"} & set(result)
    assert {"inception_score", "fid", "kid", "protocol"} <= set(result)
    (asked,), _ = evaluator.evaluate(source, FACTS, ("modern",), wanted=Wanted(diagnostics=False, kid=False))
    (whole,), _ = evaluator.evaluate(source, FACTS, ("modern",))
    assert not {"kid", "memorisation", "warnings"} & set(asked)
    names = ("fid", "precision", "recall", "density", "coverage")
    assert [asked[name] for name in names] == [whole[name] for name in names]


def test_intervals_and_fid_infinity_on_demand(pixels, folder):
    evaluator = Evaluator(folder, noise_images(150), CPU)
    source = Given(noise_images(120, seed=1).images)
    (result,), _ = evaluator.evaluate(source, FACTS, ("modern",), wanted=Wanted(bootstrap=20, infinity=True))
    for name, score in (("fid", result["fid"]), ("kid", result["kid"]["mean"])):
        assert result[f"{name}_interval"]["low"] < score < result[f"{name}_interval"]["high"]
    assert result["fid_infinity"]["value"] < result["fid"]
    line = report.summary([result])
    assert f"FID {result['fid']:.2f} ({result['fid_interval']['low']:.2f} to " in line
    assert f"FID infinity {result['fid_infinity']['value']:z.2f} +- " in line


def test_a_generator_with_broken_weights_is_refused(monkeypatch, folder):
    class Broken(Pixels):
        def forward(self, images):
            values, logits = super().forward(images)
            return values, logits.where(images.flatten(1)[:, :1] > 40, float("nan"))

    monkeypatch.setattr(features, "load_inception", lambda *args, **kwargs: Broken())
    evaluator = Evaluator(folder, noise_images(150), CPU)
    with pytest.raises(UserError, match="NaN or infinite"):
        evaluator.evaluate(Given(torch.zeros(100, 1, 2, 2, dtype=torch.uint8)), FACTS, ("modern",))


def test_too_few_images_are_refused(pixels, folder):
    with pytest.raises(UserError, match="scores need at least 10 real images"):
        Evaluator(folder, noise_images(9), CPU).plans(("modern",))
    with pytest.raises(UserError, match="scores need at least 10 samples, but there are 9"):
        Evaluator(folder, noise_images(10), CPU).evaluate(Given(noise_images(9).images), FACTS, ("modern",))
    Evaluator(folder, noise_images(10), CPU).evaluate(Given(noise_images(10).images), FACTS, ("modern",))


def test_a_reference_folder_stands_in_the_data_sets_place(tmp_path, image_folder):
    config = Config(dataset="folder", data_dir=str(image_folder), image_size=8, features="classifier")
    train = load_split(config)
    (tmp_path / "other").mkdir()
    (image_folder / "dark").rename(tmp_path / "other" / "dark")
    evaluator = Evaluator(config, train, CPU, say=lambda text: None, reference=str(tmp_path / "other"))
    (result,), _ = evaluator.evaluate(Given(train.images), FACTS, ("modern",))
    assert result["protocol"]["num_real"] == 20
    assert result["protocol"]["data_sha256"] == load_split(evaluator.real.config).sha256() != train.sha256()
    assert list(result["class_share"]) == ["dark", "light"]  # by the classifier of the data set


def test_real_digits_have_the_scores_of_real_digits(data_dir):
    config = Config(image_size=8, channels=1, data_dir=data_dir)
    split = load_split(config)
    evaluator = Evaluator(config, split, CPU, say=lambda text: None)
    (result,), _ = evaluator.evaluate(Given(split.images), FACTS, ("modern",))
    assert 9.0 < result["inception_score"]["mean"] <= 10
    assert result["fid"] == pytest.approx(0, abs=0.01)
    assert (result["precision"], result["recall"]) == (1, 1)
    shares = split.labels.bincount() / 1498
    assert list(result["class_share"]) == list("0123456789")
    assert list(result["class_share"].values()) == pytest.approx(shares.tolist(), abs=0.01)
    assert result["class_share_training"] == pytest.approx(dict(zip("0123456789", shares.tolist())))
    assert result["class_share_training"]["0"] == pytest.approx(141 / 1498)  # of the test images 12.4 %
    # A fifth of the images themselves has a FID above 0, which is what 299 test images have to be compared with.
    assert result["held_out"]["num"] == result["as_many"]["num"] == 299
    assert 1 < result["as_many"]["fid"] < result["held_out"]["fid"]
    line = report.summary([result])
    assert f"299 samples: IS {result['as_many']['inception_score']['mean']:.2f}, FID" in line
    assert f"IS {result['inception_score']['mean']:.2f}" in line
    assert "modern: 1,498 samples, 1,498 train images of digits, features of the classifier" in line
    assert "drawn from the EMA of G at step 5" in line
    (held_out,), _ = evaluator.evaluate(Given(load_split(config, "test").images), FACTS, ("modern",))
    assert "as_many" not in held_out
    assert held_out["warnings"] == []  # unseen digits are neither copies nor lacking anything
    grey = torch.full((299, 1, 8, 8), 128, dtype=torch.uint8)
    (noise,), _ = evaluator.evaluate(Given(grey), FACTS, ("modern",))
    assert noise["inception_score"]["mean"] == pytest.approx(1, abs=1e-6)
    assert noise["fid"] > 1
    assert "collapsed" in noise["warnings"][0] and "drops modes" in noise["warnings"][1]


def test_a_classifier_is_trained_when_the_first_score_asks_for_it(monkeypatch):
    made = []
    monkeypatch.setattr(features, "load_classifier", lambda *args: made.append(1) or Pixels())
    labelled = noise_images(40)._replace(labels=torch.arange(40) % 2, classes=("a", "b"))
    evaluator = Evaluator(Config(dataset="digits", features="classifier"), labelled, CPU, say=lambda text: None)
    evaluator.plans(["modern"])
    assert not made
    evaluator.load()
    evaluator.load()
    assert len(made) == 1 and evaluator.extractor.sha256 == Pixels().sha256


def test_images_without_labels_are_refused_before_anything_is_trained():
    with pytest.raises(UserError, match="needs labelled images of two classes or more"):
        Evaluator(Config(dataset="digits", features="classifier"), noise_images(40), CPU)
