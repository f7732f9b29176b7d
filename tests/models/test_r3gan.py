"""R3GAN's networks: parameters by hand, what they are at the start, the block, and what they are not built with."""

import math

import pytest
import torch
from helpers import build, count, layers_of, paper_size
from torch import nn
from torch.nn import functional as F

from models import build_models, r3gan
from models.resampling import Downsample, Upsample

# What the first 8 of 16 pixels on a side have of the first three of 4, after two upsamplings, in sixteenths
QUARTERS = [(9, 0, 0), (12, 1, 0), (12, 3, 0), (10, 6, 0), (6, 10, 0), (3, 12, 1), (1, 12, 3), (0, 10, 6)]
CIFAR10 = {"z_dim": 64}
# Of width 768: 768 to 1536, 1536 to 1536 by 3x3 in 96 groups of 16, both with biases, and back.
BLOCK = 768 * 1536 + 1536 + 1536 * 16 * 9 + 1536 + 1536 * 768


def test_the_papers_cifar10_networks_have_their_parameters():
    G, D = paper_size("r3gan", 32, **CIFAR10)
    assert count(G) == 768 * 16 + 64 * 768 + 8 * BLOCK + 768 * 3 == 20_732_160
    assert count(D) == 3 * 768 + 8 * BLOCK + 768 * 16 + 768 == 20_683_776
    G, D = paper_size("r3gan", 32, num_classes=10, conditional="projection", **CIFAR10)
    assert count(G) == 20_732_160 + 10 * 64 + 64 * 768 == 20_781_952  # published: 20.8 million
    assert count(D) == 20_683_776 - 768 + 768 * 768 + 10 * 768 == 21_280_512  # published: 21.3 million


@pytest.mark.parametrize(
    ("image_size", "sides", "widths"),
    [
        (8, (4, 8), (768, 768)),
        (16, (4, 8, 16), 3 * (768,)),
        (32, (4, 8, 16, 32), 4 * (768,)),
        (48, (6, 12, 24, 48), (768, 768, 768, 384)),
        (64, (4, 8, 16, 32, 64), (768, 768, 768, 768, 384)),
        (128, (4, 8, 16, 32, 64, 128), (768, 768, 768, 768, 384, 192)),
    ],
)
def test_the_stages_of_every_size_have_two_blocks_of_groups_of_16(image_size, sides, widths):
    assert (r3gan.SIDES[image_size], r3gan.widths(image_size, None)) == (sides, widths)
    for network in paper_size("r3gan", image_size):
        blocks = [module for module in network.modules() if isinstance(module, r3gan.Block)]
        wide = [(block.conv3.out_channels, block.conv2.groups) for block in blocks]
        assert sorted(wide, reverse=True) == [(width, width // 8) for width in widths for _ in range(2)]


def test_groups_are_those_of_the_first_width_and_fewer_where_it_is_halved():
    _, D = build("r3gan", 64, base_channels=24, groups=6)
    assert {(b.conv3.out_channels, b.conv2.groups) for b in D.modules() if isinstance(b, r3gan.Block)} == {
        (24, 6),
        (12, 3),
    }
    assert r3gan.groups_of([100, 50], None) == [25, 25]  # of 8 and of 4 channels: 16 divides neither 200 nor 100


def test_a_block_is_the_identity_at_the_start_and_then_what_its_formula_says():
    torch.manual_seed(0)
    _, D = build("r3gan", 8, base_channels=8)
    block, x = next(m for m in D.modules() if isinstance(m, r3gan.Block)).double(), torch.randn(2, 8, 4, 4).double()
    assert torch.equal(block(x), x)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    h = F.conv2d(x, block.conv1.weight) + block.conv1.bias.view(-1, 1, 1)  # the bias before the leaky ReLU
    h = F.conv2d(torch.where(h > 0, h, 0.2 * h), block.conv2.weight, padding=1, groups=block.conv2.groups)
    h = h + block.conv2.bias.view(-1, 1, 1)
    expected = x + F.conv2d(torch.where(h > 0, h, 0.2 * h), block.conv3.weight)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_weights_start_with_the_variance_of_their_fan_in_and_the_number_of_blocks():
    for network in build("r3gan", 8, base_channels=128, z_dim=256):
        blocks = [module for module in network.modules() if isinstance(module, r3gan.Block)]
        gain = math.sqrt(2 / 1.04) * 4**-0.25  # two blocks in each of two stages
        for block in blocks:
            assert not block.conv3.weight.any() and not block.conv1.bias.any() and not block.conv2.bias.any()
            assert block.conv1.weight.std().item() == pytest.approx(gain / math.sqrt(128), rel=0.05)
            assert block.conv2.weight.std().item() == pytest.approx(gain / math.sqrt(16 * 9), rel=0.05)
    assert network.depthwise.weight.std().item() == pytest.approx(1 / 4, rel=0.1)
    biased = [layer for layer in layers_of(network) if getattr(layer, "bias", None) is not None]
    assert len(biased) == 2 * len(blocks)


@pytest.mark.parametrize(
    ("image_size", "share"),
    [
        (8, (2 * 9 + 6 * 10) / (8 * 16)),  # 3/4 and 1/4 of two pixels, of variance 10/16; 3/4 of one at both ends
        # Of the 16 pixels by hand, over 16 squared: 3/4 and 1/4 of neighbours among those 8.
        (16, 2 * sum(a * a + b * b + c * c for a, b, c in QUARTERS) / (16 * 16**2)),
    ],
)
def test_the_variance_of_Gs_output_at_the_start(image_size, share):
    """That of the basis, 1, through the resampling of each side: the blocks are the identity."""
    found = []
    for seed in range(8):
        G, _ = build("r3gan", image_size, seed, base_channels=256, z_dim=64)
        with torch.no_grad():
            found.append(G(torch.randn(64, 64)).square().mean().item())
    assert sum(found) / len(found) == pytest.approx(share**2, rel=0.1)


def test_conditional_D_is_the_inner_product_of_a_linear_layer_and_the_classs_row():
    _, D = build("r3gan", 8, channels=1, num_classes=3, conditional="projection")
    D, x, y = D.double(), torch.randn(5, 1, 8, 8).double(), torch.tensor([0, 1, 2, 1, 0])
    h = D.depthwise(D.layers(D.from_image(x))).flatten(1)
    expected = ((h @ D.head.weight.t()) * D.classes.embedding.weight[y]).sum(dim=1, keepdim=True)
    torch.testing.assert_close(D(x, y), expected)


@pytest.mark.parametrize("conditional", ["projection", "acgan"])
def test_conditional_G_has_a_row_of_the_class_as_long_as_z_beside_z(conditional):
    G, _ = build("r3gan", 8, num_classes=3, conditional=conditional, z_dim=5)
    assert G.classes.embedding.weight.shape == (3, 5) and G.basis.linear.in_features == 10
    seen = []
    G.basis.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    z, y = torch.randn(2, 5), torch.tensor([2, 0])
    G(z, y)
    assert torch.equal(seen[0], torch.cat([z, G.classes.embedding.weight[y]], dim=1))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image_size": 24}, "r3gan makes images of 8, 16, 32, 48, 64, 128 pixels, not 24"),
        ({"d_norm": "batch"}, "d_norm batch is not for r3gan, whose networks do not normalise"),
        ({"d_norm": ("spectral", "layer")}, "d_norm layer is not for r3gan"),
        ({"d_norm": "weight"}, "a row of zeros cannot be scaled to norm 1. Use none or spectral"),
        ({"attention": 8}, "attention 8 is for --model dcgan or resnet, not r3gan"),
        ({"base_channels": 8, "groups": 5}, "groups 5: 5 do not divide the 16 channels of r3gan's 3x3 convolutions"),
    ],
)
def test_what_it_does_without_is_refused(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build_models("r3gan", **{"d_norm": "none", "base_channels": 4, **settings})


# ---- The resampling ------------------------------------------------------------------------------------------------


def test_upsampling_and_downsampling_have_their_known_answers():
    x = torch.tensor([[4.0, 8.0], [0.0, 0.0]], dtype=torch.float64).view(1, 1, 2, 2)
    up, down = Upsample().double(), Downsample().double()
    # On a side 3/4 of the nearer and 1/4 of the further pixel, with zeros beyond the ends: 4, 8 become 3, 5, 7, 6.
    across = torch.tensor([3.0, 5.0, 7.0, 6.0])
    expected = torch.stack([across * 0.75, across * 0.75, across * 0.25, across * 0])
    assert torch.equal(up(x)[0, 0], expected.double())
    # On a side 1, 3, 3, 1 over 8 around each pair: 8, 0, 0, 16 become 3 * 8 / 8 and 3 * 16 / 8.
    line = torch.tensor([8.0, 0.0, 0.0, 16.0], dtype=torch.float64)
    y = down(line.view(1, 1, 1, 4).expand(1, 1, 4, 4))[0, 0]
    assert torch.equal(y, torch.tensor([3.0, 6.0]).double() * 7 / 8 * torch.ones(2, 1).double())


def test_downsampling_is_the_transpose_of_upsampling_over_4_and_keeps_what_is_constant_inside():
    x, y = torch.randn(2, 3, 5, 4).double(), torch.randn(2, 3, 10, 8).double()
    up, down = Upsample().double(), Downsample().double()
    assert (up(x) * y).sum().item() == pytest.approx(4 * (x * down(y)).sum().item())
    ones = torch.ones(1, 1, 8, 8).double()
    assert torch.equal(down(ones)[0, 0, 1:-1, 1:-1], torch.ones(2, 2).double())
    assert torch.equal(up(ones)[0, 0, 1:-1, 1:-1], torch.ones(14, 14).double())


def test_the_resampling_has_nothing_to_learn_and_nothing_to_store():
    for layer in (Upsample(), Downsample()):
        assert not [*layer.parameters()] and not layer.state_dict()
