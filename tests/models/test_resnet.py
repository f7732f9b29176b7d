"""The ResNets against the paper's tables 4 to 6: parameters by hand, widths, initial weights, plain blocks."""

import itertools
import math

import pytest
import torch
from helpers import bn, build, conv, count, linear, paper_size, shapes
from torch import nn
from torch.nn import functional as F

from models.normalization import BatchNorm, LayerNorm
from models.resnet import DownBlock, UpBlock

# Parameters counted by hand, of the blocks and of all.


def up(i, o):
    return bn(i) + conv(i, o, 3) + bn(o) + conv(o, o, 3) + conv(i, o, 1)


def first(o):
    return conv(3, o, 3) + conv(o, o, 3) + conv(3, o, 1)


def down(i, o):
    return conv(i, i, 3) + conv(i, o, 3) + conv(i, o, 1)


def same(c):
    return 2 * conv(c, c, 3)


def chain(block, *widths):
    return sum(itertools.starmap(block, itertools.pairwise(widths)))


RESNET = {
    32: (
        linear(128, 4 * 4 * 256) + chain(up, 256, 256, 256, 256) + bn(256) + conv(256, 3, 3),
        first(128) + down(128, 128) + same(128) + same(128) + 128,
    ),
    48: (
        linear(128, 6 * 6 * 512) + chain(up, 512, 256, 128, 64) + bn(64) + conv(64, 3, 3),
        first(64) + chain(down, 64, 128, 256, 512, 1024) + 1024,
    ),
    64: (
        linear(128, 4 * 4 * 1024) + chain(up, 1024, 512, 256, 128, 64) + bn(64) + conv(64, 3, 3),
        first(64) + chain(down, 64, 128, 256, 512, 1024) + 1024,
    ),
    128: (
        linear(128, 4 * 4 * 1024) + chain(up, 1024, 1024, 512, 256, 128, 64) + bn(64) + conv(64, 3, 3),
        first(64) + chain(down, 64, 128, 256, 512, 1024) + same(1024) + 1024,
    ),
}


@pytest.mark.parametrize("image_size", RESNET)
def test_resnet_has_as_many_parameters_as_tables_4_to_6(image_size):
    G, D = paper_size("resnet", image_size)
    assert (count(G), count(D)) == RESNET[image_size]


def test_resnets_32_pixel_generator_has_the_4276739_parameters_of_its_peers():
    assert count(paper_size("resnet", 32)[0]) == 4_276_739


@pytest.mark.parametrize(
    ("image_size", "ups", "downs"),
    [
        (8, [(256, 8)], [(128, 4), (128, 4), (128, 4)]),
        (16, [(256, 8), (256, 16)], [(128, 8), (128, 8), (128, 8)]),
        (32, [(256, 8), (256, 16), (256, 32)], [(128, 16), (128, 8), (128, 8), (128, 8)]),
        (48, [(256, 12), (128, 24), (64, 48)], [(64, 24), (128, 12), (256, 6), (512, 3), (1024, 3)]),
        (64, [(512, 8), (256, 16), (128, 32), (64, 64)], [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2)]),
        (
            128,
            [(1024, 8), (512, 16), (256, 32), (128, 64), (64, 128)],
            [(64, 64), (128, 32), (256, 16), (512, 8), (1024, 4), (1024, 4)],
        ),
    ],
)
def test_resnets_blocks_have_the_widths_and_sizes_of_the_tables(image_size, ups, downs):
    G, D = paper_size("resnet", image_size)
    assert shapes(G, torch.empty(2, 128, device="meta"), UpBlock) == [(c, s, s) for c, s in ups]
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    assert shapes(D, images, DownBlock) == [(c, s, s) for c, s in downs]


def test_resnets_weights_are_xavier_uniform_with_gain_root_two_in_the_residual_branch_only():
    for network in build("resnet", base_channels=16, z_dim=32):
        for name, layer in network.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                gain = math.sqrt(2) if name.endswith(("conv1", "conv2")) else 1
                area = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
                bound = gain * math.sqrt(6 / (area * (layer.weight.size(0) + layer.weight.size(1))))
                # Of n uniform numbers the largest is about bound (1 - 1/n), the deviation bound / root 3.
                n = layer.weight.numel()
                assert bound * (1 - 10 / n) < layer.weight.abs().max() <= bound * 1.0001, name
                assert abs(layer.weight.std() / bound * math.sqrt(3) - 1) < 4 / math.sqrt(n), name


@pytest.mark.parametrize(("name", "kind"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_resnets_d_normalises_before_every_relu_but_not_in_the_first_block(name, kind):
    _, D = build("resnet", d_norm=name)
    found = [path for path, module in D.named_modules() if isinstance(module, kind)]
    assert found == [f"blocks.{i}.norm{k}" for i in (1, 2, 3) for k in (1, 2)] + ["norm"]


def normalise(x, norm):
    """Batch normalization written out."""
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    mean, variance, gain, bias = (t.view(-1, 1, 1) for t in (mean, variance, norm.weight, norm.bias))
    return (x - mean) / (variance + 1e-5).sqrt() * gain + bias


def upsample(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def conv3(x, layer):
    """A plain 3x3 convolution with this layer's parameters, whatever the layer fuses with it."""
    return F.conv2d(x, layer.weight, layer.bias, padding=1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("n", "size"), [(3, 1), (2, 4)])
def test_up_block_equals_the_papers_block_written_plainly(n, size, training):
    torch.manual_seed(0)
    block, x = UpBlock(3, 5).double().train(training), torch.randn(n, 3, size, size).double()
    for norm in (block.bn1, block.bn2):
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            nn.init.uniform_(values, 0.5, 1.5)
    h = conv3(upsample(F.relu(normalise(x, block.bn1))), block.conv1)
    h = conv3(F.relu(normalise(h, block.bn2)), block.conv2)
    shortcut = F.conv2d(upsample(x), block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x), h + shortcut, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("widths", "settings"),
    [((3, 4), {"down": True, "first": True}), ((3, 4), {"down": True}), ((4, 4), {"down": True}), ((3, 4), {})],
)
def test_down_block_equals_the_papers_block_written_plainly(widths, settings):
    torch.manual_seed(0)
    block = DownBlock(*widths, **{"down": False, **settings}).double()
    x = torch.randn(3, widths[0], 6, 6).double()

    def pool(x):
        return F.avg_pool2d(x, 2) if settings.get("down") else x

    h = conv3(x if settings.get("first") else F.relu(x), block.conv1)
    expected = pool(conv3(F.relu(h), block.conv2))
    expected = expected + pool(F.conv2d(x, block.shortcut.weight, block.shortcut.bias))
    assert block.conv1.out_channels == (4 if settings.get("first") else widths[0])
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_a_down_block_that_changes_nothing_has_the_identity_as_shortcut():
    torch.manual_seed(0)
    block, x = DownBlock(4, 4, down=False).double(), torch.randn(3, 4, 6, 6).double()
    expected = x + conv3(F.relu(conv3(F.relu(x), block.conv1)), block.conv2)
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    assert not list(block.shortcut.parameters())


@pytest.mark.parametrize("block", [UpBlock(3, 4), DownBlock(3, 4, True), DownBlock(3, 3, False)])
def test_the_first_relu_of_a_block_leaves_its_input_alone(block):
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_resnets_G_ends_with_batch_norm_relu_convolution_and_tanh():
    G, _ = build("resnet", 8)
    z = torch.randn(3, 5)
    h = G.blocks(G.project(z).view(3, 4, 4, 4))
    expected = conv3(F.relu(normalise(h, G.bn)), G.to_image).tanh()
    torch.testing.assert_close(G(z), expected)


def test_resnets_D_sums_over_positions_and_has_a_head_without_bias():
    _, D = build("resnet", 32)
    D.blocks = nn.Identity()
    features = torch.randn(3, 2, 4, 4)
    logits = D(features)
    expected = torch.stack([D.head.weight @ image.clamp_min(0).flatten(1).sum(1) for image in features])
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(D(features.repeat(1, 1, 2, 2)), 4 * logits)
    assert D.head.bias is None
