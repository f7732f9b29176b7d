"""Modes: generators of known combinations, the KL divergence in closed form, and what real images get."""

import csv
import math
from pathlib import Path

import pytest
import torch
from evaluation_results import result

from datasets import load_split
from datasets.images import Images
from evaluation.evaluator import Evaluator
from evaluation.inputs import features
from evaluation.inputs.sampling import Given
from evaluation.results import kept, plots, report, table
from evaluation.scores import diagnostics, metrics, modes
from settings.config import Config

CPU = torch.device("cpu")
CONFIG = Config(dataset="stacked_digits", image_size=8)
EVEN = torch.full((1000,), 1e-3, dtype=torch.float64)
FOUND = {"found": 312, "of": 1000, "kl": 1.25, "num_samples": 26_000}


class Digits(torch.nn.Module):
    """A classifier that reads a digit off the shade of an image: shade 10 * k is digit k."""

    resize, sha256, examined = "none", "0" * 64, {"split": "test", "accuracy": 0.5}

    def forward(self, images):
        shade = images.flatten(1)[:, :1].float()
        return shade, -0.01 * (shade - 10 * torch.arange(10.0)).square()


def stacks(numbers):
    """Stacks (N, 3, 2, 2) of digits in those shades, whose combinations are these numbers."""
    digits = [10 * (number // place % 10) for place in (100, 10, 1) for number in numbers]
    return torch.tensor(digits, dtype=torch.uint8).view(3, -1).T[:, :, None, None].expand(-1, -1, 2, 2)


def counted(numbers, known=EVEN):
    return modes.count(features.StackedClassifier(Digits())(stacks(numbers))[1], known)["modes"]


def test_a_generator_of_three_combinations_has_three_modes_and_the_kl_of_their_frequencies():
    found = counted([5, 5, 123, 999] * 50)
    # q = 1/2, 1/4, 1/4 and p = 1/1000: log 1000 less the entropy of q, 1.5 log 2.
    assert found == {
        "found": 3,
        "of": 1000,
        "kl": pytest.approx(math.log(1000) - 1.5 * math.log(2)),
        "num_samples": 200,
    }


def test_all_combinations_alike_are_1000_modes_and_a_kl_of_0():
    found = counted(list(range(1000)) * 2)
    assert (found["found"], found["kl"]) == (1000, pytest.approx(0, abs=1e-12))


def test_the_kl_is_that_of_the_samples_from_the_data_and_not_the_other_way():
    known = torch.full((1000,), 0.5 / 999, dtype=torch.float64)
    known[7] = 0.5
    assert counted([7] * 30, known)["kl"] == pytest.approx(math.log(2))
    assert counted([8] * 30, known)["kl"] == pytest.approx(math.log(2 * 999))


def test_26000_samples_are_counted_and_no_more(monkeypatch):
    monkeypatch.setattr(modes, "NUM_SAMPLES", 4)
    found = counted([1, 2, 3, 3, 4, 5])
    assert (found["found"], found["num_samples"]) == (3, 4)
    endless, ten = Given(stacks([1])), Given(stacks([1] * 10))
    endless.count = None
    assert [modes.wanted(EVEN, endless, drawn) for drawn in (2, 9)] == [4, 9]
    assert [modes.wanted(None, endless, 2), modes.wanted(EVEN, Given(stacks([1, 2])), 2)] == [2, 2]
    assert modes.wanted(EVEN, ten, 3) == 4


def test_the_logits_are_the_logarithms_of_the_products_of_the_digits_probabilities():
    class Known(Digits):
        def forward(self, images):
            logits = torch.randn(len(images), 10, generator=torch.Generator().manual_seed(1))
            return torch.arange(2.0 * len(images)).view(-1, 2), logits

    found, logits = features.StackedClassifier(Known())(stacks([0, 0]))
    assert found.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    digits = Known()(torch.zeros(6, 1, 2, 2))[1].softmax(1)
    assert logits.exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert logits[1, 123].exp().item() == pytest.approx((digits[3, 1] * digits[4, 2] * digits[5, 3]).item(), rel=1e-5)
    assert features.StackedClassifier(Known()).examined == {"split": "test", "accuracy": 0.125}


def test_real_stacks_are_all_1000_modes_with_a_kl_of_chance_alone(data_dir):
    config = Config(dataset="stacked_digits", image_size=8, data_dir=data_dir)
    train, test = load_split(config), load_split(config, "test")
    classifier = features.load_classifier(config, train, CPU, lambda text: None)
    known = modes.frequencies(config, train)
    with torch.inference_mode():
        answers = torch.cat([classifier(part)[1] for part in test.images.split(1000)])
    found = modes.count(answers, known)["modes"]
    assert found["found"] == 1000 and found["num_samples"] == 26_000
    assert found["kl"] < 0.15  # 999 / 52,000 = 0.02 by chance, and 299 test digits are not even
    assert modes.frequencies(Config(), train) is None


@pytest.fixture
def evaluator(monkeypatch):
    """An Evaluator of 300 stacks in shades, which sees 50 samples at least for its modes."""
    numbers = torch.randint(1000, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    train = Images(stacks(numbers).contiguous(), torch.tensor(numbers), tuple(f"{i:03}" for i in range(1000)))
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)
    monkeypatch.setattr(modes, "NUM_SAMPLES", 50)
    monkeypatch.setattr(modes, "frequencies", lambda config, train: EVEN)
    monkeypatch.setattr("evaluation.inputs.reference.load_split", lambda config, split: train)
    monkeypatch.setattr(features, "load_classifier", lambda *parts: features.StackedClassifier(Digits()).eval())
    monkeypatch.setattr("evaluation.inputs.reference.cache_folder", lambda config: Path("/dev/null/none"))
    return Evaluator(CONFIG, train, CPU, say=lambda text: None)


class Endless(Given):
    def __init__(self, images):
        super().__init__(images)
        self.count = None


def test_modes_are_counted_among_more_samples_than_are_scored_and_change_no_other_score(evaluator, monkeypatch):
    numbers = torch.randint(1000, (64,), generator=torch.Generator().manual_seed(1)).tolist()
    source, facts = Endless(stacks(numbers).contiguous()), {"step": 5, "ema": True, "seed": 3}
    (found,), _ = evaluator.evaluate(source, facts, ("modern",), num_samples=20)
    assert found["modes"] == counted(numbers[:50]) and found["protocol"]["num_samples"] == 20
    assert found["protocol"]["modes_samples"] == 50 and "KL(samples || data)" in found["protocol"]["modes_kl"]
    assert found["held_out"]["modes"]["num_samples"] == 50
    assert "class_share" not in found
    monkeypatch.setattr(modes, "NUM_SAMPLES", 20)
    (fewer,), _ = evaluator.evaluate(source, facts, ("modern",), num_samples=20)
    for name in ("inception_score", "fid", "kid", "precision", "density", "memorisation", "diversity"):
        assert fewer[name] == found[name]


def test_modes_go_through_the_report(tmp_path, figures):
    new = result(800, 3.0, modes=FOUND, held_out={"what": "test images", "fid": 0.5, "modes": FOUND | {"kl": 0.0}})
    new["held_out"]["inception_score"] = {"mean": 9.0, "std": 0.5}
    assert "recall 0.50, 312 of 1,000 modes (KL 1.250)" in report.summary([new])
    assert "FID 0.50, 312 of 1,000 modes (KL 0.000)" in report.summary([new])
    assert {"modes": 312, "modes_kl": 1.25}.items() <= report.flat(new).items()
    (_, path), results = report.write(tmp_path / "evaluation", [result(400, 9.0), new])
    with open(path, newline="") as file:
        row = list(csv.DictReader(file))[1]
    assert (row["modes"], row["modes_kl"], row["held_out_modes_kl"]) == ("312", "1.25", "0.0")
    plots.plot_scores(tmp_path / "scores.png", {"modern": results})
    assert "modes found (more is better)" in [axis.get_ylabel() for axis in figures[0].axes]
    (row, _) = table.rows([table.Scored("a", Config(), new)])
    assert row.scores["modes"] == (312, None) and row.scores["modes_kl"] == (1.25, None)
    assert kept.read(tmp_path / "evaluation")[1]["modes"] == FOUND
    broken = {**new, "modes": {"found": "many"}}
    assert not kept._whole(broken) and kept._whole(new)


def test_few_modes_are_a_warning():
    calm = {"diversity": {"distance_between_samples": 1.0, "distance_between_real": 1.0}, "recall": 0.5}
    calm["memorisation"] = {"nearer": 0.5}
    (said,) = diagnostics.warnings(calm | {"modes": FOUND})
    assert said == "the generator drops modes: 26,000 samples show 312 of 1,000 combinations"
    assert diagnostics.warnings(calm | {"modes": FOUND | {"found": 950}}) == []
