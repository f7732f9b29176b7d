"""Scores: known answers of each formula, the samples that are drawn, and what evaluation.json says about them."""

import json

import pytest
import torch
from torch import nn
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from models import build_models
from utils import features as extractors
from utils import metrics
from utils.config import Config
from utils.data import Images, load_split
from utils.errors import UserError

CPU = torch.device("cpu")


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


LOGITS = torch.zeros(200, 10)


# ---- scores() ------------------------------------------------------------------------------------------------------


def test_fid_of_equal_covariances_is_the_squared_distance_of_the_means():
    real = gaussian(100, 4)
    shift = torch.tensor([3.0, 0.0, -4.0, 0.5])
    assert metrics.scores(real + shift, LOGITS, real)["fid"] == pytest.approx(25.25, rel=1e-5)


@pytest.mark.parametrize("factor", [2.0, 0.5, 3.0])
def test_fid_of_a_scaled_distribution_is_its_closed_form(factor):
    real = gaussian(100, 4)
    # Tr(S + f^2 S - 2 f S) + |(f - 1) mu|^2
    expected = (factor - 1) ** 2 * (real.double().T.cov().trace() + real.double().mean(0).square().sum()).item()
    assert metrics.scores(factor * real, LOGITS, real)["fid"] == pytest.approx(expected, rel=1e-5)


def test_fid_of_two_diagonal_gaussians_is_the_squared_distance_of_their_deviations():
    # Columns of +-s are uncorrelated with a known variance: four points in two dimensions, repeated.
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(25, 1)
    unbiased = 100 / 99
    result = metrics.scores(corners * torch.tensor([1.0, 5]), LOGITS, corners * torch.tensor([3.0, 2]))
    assert result["fid"] == pytest.approx(((3 - 1) ** 2 + (5 - 2) ** 2) * unbiased, rel=1e-6)


def test_identical_features_have_fid_0_and_precision_and_recall_1():
    real = gaussian(100, 8)
    result = metrics.scores(real.clone(), LOGITS, real)
    assert result["fid"] == pytest.approx(0, abs=1e-4)
    assert (result["precision"], result["recall"]) == (1, 1)


def test_kid_is_the_unbiased_estimate_with_the_cubic_kernel():
    found, real = gaussian(60, 8), gaussian(60, 8, seed=1) + 0.5
    within, between = [(part @ part.T / 8 + 1) ** 3 for part in (found, real)], (found @ real.T / 8 + 1) ** 3
    # Fewer than 1,000 images: each subset is all of them.
    expected = sum((K.sum() - K.trace()) / (60 * 59) for K in within) - 2 * between.mean()
    kid = metrics.scores(found, LOGITS, real)["kid"]
    assert kid["mean"] == pytest.approx(expected.item(), rel=1e-4)
    assert kid["std"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("samples", "real", "size"), [(1200, 1100, 1000), (1200, 60, 60), (70, 1100, 70)])
def test_kid_takes_100_subsets_of_1000_or_of_as_many_as_there_are(monkeypatch, samples, real, size):
    asked = {}

    def kid(*parts, **kwargs):
        asked.update(kwargs)
        return {"kernel_inception_distance_mean": 0.5, "kernel_inception_distance_std": 0.25}

    monkeypatch.setattr(metric_kid, "kid_features_to_metric", kid)
    result = metrics.scores(gaussian(samples, 2), LOGITS, gaussian(real, 2))
    assert (asked["kid_subsets"], asked["kid_subset_size"]) == (100, size)
    assert result["kid"] == {"mean": 0.5, "std": 0.25}


def test_distant_features_have_precision_and_recall_0():
    real = gaussian(100, 8)
    result = metrics.scores(real + 100, LOGITS, real)
    assert (result["precision"], result["recall"]) == (0, 0)


def test_samples_of_one_mode_of_two_are_precise_and_recall_half():
    first, second = gaussian(100, 2), gaussian(100, 2, seed=1) + 100
    result = metrics.scores(first, LOGITS, torch.cat([first, second]))
    assert (result["precision"], result["recall"]) == (1, 0.5)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_inception_score_of_sure_and_even_answers_is_the_number_of_classes(classes):
    logits = 50 * torch.eye(classes).repeat(100_000 // classes, 1)
    score = metrics.scores(gaussian(50, 2), logits, gaussian(50, 2))["inception_score"]
    assert score["mean"] == pytest.approx(classes, rel=1e-3)  # each of the 10 splits is even within chance
    assert score["std"] < 0.01


@pytest.mark.parametrize("logits", [torch.zeros(200, 10), 50 * torch.eye(10)[[3] * 200]], ids=["unsure", "one class"])
def test_the_inception_score_of_equal_answers_is_1(logits):
    score = metrics.scores(gaussian(50, 2), logits, gaussian(50, 2))["inception_score"]
    assert score["mean"] == pytest.approx(1, abs=1e-9)
    assert score["std"] == pytest.approx(0, abs=1e-9)


def test_the_scores_are_torch_fidelitys_own():
    found, real, logits = gaussian(120, 6), gaussian(130, 6, seed=1) * 1.3 + 0.2, 3 * gaussian(120, 10, seed=2)
    inception_score = metric_isc.isc_features_to_metric(logits, splits=10)
    statistics = [metric_fid.fid_features_to_statistics(part) for part in (found, real)]
    kid = metric_kid.kid_features_to_metric(found, real, kid_subsets=100, kid_subset_size=120, verbose=False)
    prc = metric_prc.prc_features_to_metric(found, real, verbose=False)
    assert metrics.scores(found, logits, real) == {
        "inception_score": {
            "mean": inception_score["inception_score_mean"],
            "std": inception_score["inception_score_std"],
        },
        "fid": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "kid": {"mean": kid["kernel_inception_distance_mean"], "std": kid["kernel_inception_distance_std"]},
        "precision": prc["precision"],
        "recall": prc["recall"],
    }


# ---- draw_samples() ------------------------------------------------------------------------------------------------


def small_generator():
    torch.manual_seed(0)
    return build_models("dcgan", image_size=8, channels=1, z_dim=4, base_channels=4)[0]


@pytest.mark.parametrize("num_samples", [1, 99, 100, 101, 250])
def test_sample_i_is_the_same_however_many_are_drawn(num_samples):
    G = small_generator()
    many = metrics.draw_samples(G, 4, 300, seed=0, device=CPU)
    drawn = metrics.draw_samples(G, 4, num_samples, seed=0, device=CPU)
    assert drawn.shape == (num_samples, 1, 8, 8) and drawn.dtype == torch.uint8
    assert torch.equal(drawn, many[:num_samples])


def test_samples_depend_on_the_seed_and_differ_from_each_other():
    G = small_generator()
    first, again, other = (metrics.draw_samples(G, 4, 200, seed, CPU) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) == 200


def test_the_latents_are_standard_normal():
    class Recorder(nn.Module):
        def forward(self, z):
            drawn.append(z)
            return z.view(-1, 1, 2, 2)

    drawn = []
    metrics.draw_samples(Recorder(), 4, 20_000, seed=0, device=CPU)
    z = torch.cat(drawn)
    assert z.shape == (20_000, 4)
    assert z.mean(0).abs().max() < 0.03
    assert (z.T.cov() - torch.eye(4)).abs().max() < 0.05


def test_drawing_leaves_the_generators_statistics_alone_and_the_global_random_state_too():
    G = small_generator().train()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    metrics.draw_samples(G, 4, 150, seed=0, device=CPU)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_samples_are_quantised_by_rounding_and_clamping():
    class Constant(nn.Module):
        def forward(self, z):
            return torch.tensor([-1.5, -1.0, 0.5, 1.5]).expand(len(z), 4).view(-1, 1, 2, 2)

    images = metrics.draw_samples(Constant(), 4, 3, seed=0, device=CPU)
    assert images.flatten(1).tolist() == [[0, 0, 191, 255]] * 3


# ---- extract() and Evaluator ---------------------------------------------------------------------------------------


class Pixels(nn.Module):
    """An extractor whose features and logits are known: the pixels, and the brightness as two classes."""

    name, resize, sha256 = "pixels", "none", "0" * 64

    def forward(self, images):
        values = images.flatten(1).double() / 255
        bright = values.mean(1)
        return values, torch.stack([bright, 1 - bright], dim=1)


@pytest.fixture
def pixels(monkeypatch):
    monkeypatch.setattr(extractors, "load_extractor", lambda *args, **kwargs: Pixels())


def noise_images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 2, 2), generator=generator).to(torch.uint8)
    return Images(images, torch.full((count,), -1), ())


class Replay(nn.Module):
    """A perfect generator: it gives back known images in their order, whatever z says."""

    def __init__(self, images):
        super().__init__()
        self.images, self.position = images.float() / 127.5 - 1, 0

    def forward(self, z):
        chosen = torch.arange(self.position, self.position + len(z)) % len(self.images)
        self.position += len(z)
        return self.images[chosen]


def test_features_are_extracted_in_order_as_float32_on_the_cpu():
    images = noise_images(250).images
    found, logits = metrics.extract(Pixels(), images, CPU)
    assert found.dtype == logits.dtype == torch.float32
    assert torch.equal(found, images.flatten(1).double().div(255).float())
    assert torch.equal(logits[:, 0], images.flatten(1).double().div(255).mean(1).float())


def test_a_generator_of_the_real_images_has_perfect_scores_and_returns_what_was_scored(pixels):
    split = noise_images(300)
    evaluator = metrics.Evaluator(Config(z_dim=4, num_samples=300), split, CPU)
    result, images = evaluator.evaluate(Replay(split.images), evaluator.config, 5, ema=True)
    assert torch.equal(images, split.images)
    assert result["fid"] == pytest.approx(0, abs=1e-5)
    assert (result["precision"], result["recall"]) == (1, 1)


def test_the_protocol_holds_everything_that_a_score_depends_on(pixels):
    import torchvision

    config = Config(z_dim=4, image_size=8, num_samples=120, seed=3)
    evaluator = metrics.Evaluator(config, noise_images(150), CPU)
    result, images = evaluator.evaluate(Replay(noise_images(9).images), evaluator.config, 5, ema=False)
    assert len(images) == 120
    assert set(result) >= {"inception_score", "fid", "kid", "precision", "recall", "protocol"}
    assert set(result["inception_score"]) == set(result["kid"]) == {"mean", "std"}
    protocol = result["protocol"]
    expected = {"step": 5, "ema": False, "num_samples": 120, "num_real": 150, "split": "train", "seed": 3}
    expected |= {"dataset": "digits", "features": "pixels", "features_sha256": "0" * 64, "resize": "none"}
    assert {name: protocol[name] for name in expected} == expected
    assert "uint8" in protocol["quantisation"]
    assert protocol["versions"]["torch"] == torch.__version__.split("+")[0]
    assert protocol["versions"]["torchvision"] == torchvision.__version__.split("+")[0]
    assert {"python", "numpy", "torch-fidelity"} <= set(protocol["versions"])
    assert json.loads(json.dumps(result)) == result


def test_the_number_of_samples_and_the_seed_are_those_of_the_scored_run(pixels):
    evaluator = metrics.Evaluator(Config(z_dim=4, num_samples=300, seed=3), noise_images(150), CPU)
    result, images = evaluator.evaluate(
        Replay(noise_images(9).images), Config(z_dim=4, num_samples=110, seed=0), 5, True
    )
    assert len(images) == 110
    assert (result["protocol"]["num_samples"], result["protocol"]["seed"]) == (110, 0)


def test_a_generator_with_broken_weights_is_refused(monkeypatch):
    class Broken(Pixels):
        def forward(self, images):
            values, logits = super().forward(images)
            return values, logits.where(images.flatten(1)[:, :1] > 0, float("nan"))

    monkeypatch.setattr(extractors, "load_extractor", lambda *args, **kwargs: Broken())
    evaluator = metrics.Evaluator(Config(z_dim=4, num_samples=100), noise_images(150), CPU)
    with pytest.raises(UserError, match="not finite"):
        evaluator.evaluate(Replay(torch.zeros(1, 1, 2, 2, dtype=torch.uint8)), evaluator.config, 5, True)


def test_a_single_real_image_is_refused(pixels):
    with pytest.raises(UserError, match="two real images or more"):
        metrics.Evaluator(Config(), noise_images(1), CPU)


def test_real_digits_have_the_scores_of_real_digits(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "KID_SUBSETS", 2)  # for time
    train_classifier = extractors.train_classifier
    monkeypatch.setattr(
        extractors, "train_classifier", lambda train, device, epochs: train_classifier(train, device, 6)
    )
    config = Config(image_size=8, channels=1, data_dir=str(tmp_path), num_samples=1498)
    split = load_split(config)
    evaluator = metrics.Evaluator(config, split, CPU, say=lambda text: None)
    result, _ = evaluator.evaluate(Replay(split.images), evaluator.config, 1, ema=True)
    assert 9.0 < result["inception_score"]["mean"] <= 10
    assert result["fid"] == pytest.approx(0, abs=0.01)
    assert (result["precision"], result["recall"]) == (1, 1)
    shares = split.labels.bincount() / 1498
    assert list(result["class_share"]) == list("0123456789")
    assert list(result["class_share"].values()) == pytest.approx(shares.tolist(), abs=0.01)
    line = metrics.summary(result)
    assert f"IS {result['inception_score']['mean']:.2f}" in line
    assert "1,498 samples of the EMA of G at step 1 against 1,498 train images" in line
    assert "features of the classifier" in line
    noise, _ = evaluator.evaluate(
        Replay(torch.full((1, 1, 8, 8), 128, dtype=torch.uint8)), evaluator.config, step=1, ema=True
    )
    assert noise["inception_score"]["mean"] == pytest.approx(1, abs=1e-6)
    assert noise["fid"] > 1
