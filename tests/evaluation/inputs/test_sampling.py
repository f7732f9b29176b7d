"""Samples: the same whatever is asked beside them; features in order, from blocks shared by any number of ranks."""

import math

import pytest
import torch
from helpers import Pixels, random_images
from torch import nn

from evaluation.inputs import sampling
from evaluation.inputs.sampling import Generated, Given, extract, images_at
from models import build_models

CPU = torch.device("cpu")


def small_generator(model="dcgan", image_size=8):
    torch.manual_seed(0)
    return build_models(model, image_size=image_size, channels=1, z_dim=4, base_channels=4)[0]


@pytest.mark.parametrize("truncation", [0.5, 1.0, 2.0])
def test_truncated_latents_are_of_the_truncated_normal_distribution(truncation):
    z = sampling.latents(0, 0, 10_000, 4, truncation)
    within = math.erf(truncation / math.sqrt(2))
    density = math.exp(-(truncation**2) / 2) / math.sqrt(2 * math.pi)
    variance = 1 - 2 * truncation * density / within
    assert z.abs().max() <= truncation
    assert abs(z.mean()) < 0.02 and abs(z.var() - variance) < 0.02 * variance
    plain = sampling.latents(0, 0, 10_000, 4)
    kept = plain.abs() <= truncation
    assert torch.equal(z[kept], plain[kept]) and abs(kept.float().mean() - within) < 0.01
    assert torch.equal(sampling.latents(0, 7, 1, 4, truncation), z[7:8])


def test_a_latent_depends_on_the_seed_and_its_number_alone():
    many = sampling.latents(seed=3, start=0, count=200, z_dim=16)
    for start, count in ((0, 1), (199, 1), (5, 7), (60, 100)):
        assert torch.equal(sampling.latents(3, start, count, 16), many[start : start + count])
    assert not torch.equal(sampling.latents(4, 0, 200, 16), many)
    assert len(many.unique(dim=0)) == 200


def test_the_latents_are_standard_normal():
    z = sampling.latents(seed=0, start=0, count=20_000, z_dim=4)
    assert z.mean(0).abs().max() < 0.03
    assert (z.T.cov() - torch.eye(4)).abs().max() < 0.05


@pytest.mark.parametrize(("model", "image_size"), [("dcgan", 8), ("resnet", 32), ("mlp", 8)])
def test_the_samples_are_the_same_one_by_one_and_by_the_thousand(model, image_size):
    source = Generated(small_generator(model, image_size), 4, seed=0, device=CPU)
    first = torch.cat([source.block(0), source.block(1), source.block(2)])
    assert first.shape == (192, 1, image_size, image_size) and first.dtype == torch.uint8
    for chosen in ([0], [100, 3, 191], range(64, 128)):
        assert torch.equal(torch.stack(list(images_at(source, chosen))), first[list(chosen)])
    other = Generated(source.G, 4, seed=1, device=CPU)
    assert not torch.equal(other.block(0), source.block(0))


def test_sampling_leaves_the_generators_statistics_alone_and_the_global_random_state_too():
    G = small_generator().train()
    before = {name: value.clone() for name, value in G.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    Generated(G, 4, seed=0, device=CPU).block(0)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in G.state_dict().items())


def test_samples_are_quantised_by_rounding_and_clamping():
    class Constant(nn.Module):
        def forward(self, z):
            return torch.tensor([-1.5, -1.0, 0.5, 1.5]).expand(len(z), 4).view(-1, 1, 2, 2)

    assert Generated(Constant(), 4, 0, CPU).block(0).flatten(1).tolist() == [[0, 0, 191, 255]] * 64


@pytest.mark.parametrize("count", [1, 63, 64, 65, 250])
def test_features_are_extracted_in_order_as_float32(count):
    given = random_images(250, 1, 2, 2)
    found, logits = extract([Pixels()], Given(given), count, CPU, "images")
    assert found.dtype == logits.dtype == torch.float32
    assert torch.equal(found, given[:count].flatten(1).double().div(255).float())
    assert torch.equal(logits[:, 0], given[:count].flatten(1).double().div(255).mean(1).float())


def test_given_images_may_be_some_of_them_in_an_order_without_a_copy():
    images, order = random_images(250, 1, 2, 2), torch.arange(249, -1, -2)  # 125 of them
    given = Given(images, order)
    assert given.count == 125 and given.images is images
    assert torch.equal(torch.cat([given.block(0), given.block(1)]), images[order])
    copied = Given(images[order])
    assert all(torch.equal(given.shuffled().block(i), copied.shuffled().block(i)) for i in (0, 1))


def test_several_networks_see_the_same_pass():
    class Counting(Given):
        blocks = 0

        def block(self, number):
            Counting.blocks += 1
            return super().block(number)

    given = random_images(130, 1, 2, 2)
    once = extract([Pixels()], Given(given), 130, CPU, "images")
    twice = extract([Pixels(), Pixels()], Counting(given), 130, CPU, "images")
    assert Counting.blocks == 3
    assert len(twice) == 4 and all(torch.equal(a, b) for a, b in zip(twice, once * 2))


@pytest.mark.parametrize(("count", "ranks"), [(250, 2), (250, 3), (64, 2), (65, 4), (1, 3)])
def test_any_number_of_ranks_share_the_blocks_and_put_them_in_order(monkeypatch, count, ranks):
    given = random_images(250, 1, 2, 2)
    alone = extract([Pixels()], Given(given), count, CPU, "images")
    monkeypatch.setattr(sampling, "world_size", lambda: ranks)
    others = []
    for number in range(1, ranks):
        monkeypatch.setattr(sampling, "rank", lambda number=number: number)
        rows = []
        monkeypatch.setattr(sampling, "gather", rows.append)
        assert extract([Pixels()], Given(given), count, CPU, "images") is None
        others.append(rows)
    turns = iter(zip(*others))  # (features of ranks 1, 2, ...), then their logits
    monkeypatch.setattr(sampling, "rank", lambda: 0)
    monkeypatch.setattr(sampling, "gather", lambda rows: torch.stack([rows, *next(turns)]))
    shared = extract([Pixels()], Given(given), count, CPU, "images")
    assert all(torch.equal(a, b) for a, b in zip(shared, alone))
