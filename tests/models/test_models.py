"""The networks against the paper's tables: shapes, parameter counts by hand, initial weights, and their plain forms."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from losses import LOSSES, REGULARIZERS
from models import MODELS, build_models, dcgan
from models.convolution import Conv2d, ConvTranspose2d
from models.normalization import D_NORMS
from models.resnet import DownBlock, UpBlock
from models.spectral_norm import SUPPORTED, is_spectrally_normalized
from utils.config import FIELDS

SIZES = (8, 16, 32, 48, 64, 128)


def build(model, image_size=32, seed=0, **settings):
    """A small pair with plain weights, unless the settings say otherwise."""
    torch.manual_seed(seed)
    return build_models(model, image_size, **{"z_dim": 5, "base_channels": 2, "d_norm": "none", **settings})


def paper_size(model, image_size, **settings):
    """The pair in the paper's widths without memory behind it: shapes only."""
    with torch.device("meta"):
        return build_models(model, image_size, d_norm="none", **settings)


def layers_of(network):
    return [module for module in network.modules() if isinstance(module, SUPPORTED)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_G_makes_images_in_range_and_D_a_logit_for_each(model, image_size, channels):
    G, D = build(model, image_size, channels=channels)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(100)  # far past where tanh saturates
        images = G(torch.randn(3, 5))
        logits = D(images)
    assert images.shape == (3, channels, image_size, image_size)
    assert -1 <= images.min() < -0.99 and 0.99 < images.max() <= 1
    assert logits.shape == (3, 1) and logits.isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_Ds_logits_are_linear_in_its_last_layer(model):
    _, D = build(model, 8)
    head, x = layers_of(D)[-1], torch.randn(4, 3, 8, 8)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    before = D(x)
    head.weight.data.mul_(-1e9)
    assert before.abs().min() > 0
    torch.testing.assert_close(D(x), -1e9 * before, rtol=1e-5, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_gets_a_gradient(model):
    G, D = build(model, 16)
    D(G(torch.randn(4, 5))).square().sum().backward()
    weights = [layer.weight for layer in layers_of(G) + layers_of(D)]
    assert all(parameter.grad is not None for parameter in [*G.parameters(), *D.parameters()])
    assert all(weight.grad.abs().sum() > 0 for weight in weights)


# Parameters counted by hand, from the tables of the paper.


def conv(i, o, k):
    return i * o * k * k + o


def linear(i, o):
    return i * o + o


def bn(c):
    return 2 * c


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


def dcgan_D(*widths):
    kernels = (3, 4, 3, 4, 3, 4, 3)
    return sum(conv(i, o, k) for (i, o), k in zip(itertools.pairwise(widths), kernels, strict=True))


DCGAN = {  # G and D without their linear layers
    "code": (
        bn(512)
        + conv(512, 256, 4)
        + bn(256)
        + conv(256, 128, 4)
        + bn(128)
        + conv(128, 64, 4)
        + bn(64)
        + conv(64, 3, 3),
        dcgan_D(3, 64, 128, 128, 256, 256, 512, 512),
    ),
    "paper": (
        conv(512, 256, 4) + bn(256) + conv(256, 128, 4) + bn(128) + conv(128, 64, 4) + bn(64) + conv(64, 3, 3),
        dcgan_D(3, 64, 64, 128, 128, 256, 256, 512),
    ),
}
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


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("image_size", "bottom"), [(32, 4), (48, 6)])
@pytest.mark.parametrize("variant", dcgan.VARIANTS)
def test_dcgan_has_as_many_parameters_as_table_3_and_the_authors_code(variant, image_size, bottom):
    G, D = paper_size("dcgan", image_size, arch_variant=variant)
    expected_G, expected_D = DCGAN[variant]
    assert count(G) == linear(128, bottom**2 * 512) + expected_G
    assert count(D) == expected_D + linear(bottom**2 * 512, 1)


@pytest.mark.parametrize("image_size", RESNET)
def test_resnet_has_as_many_parameters_as_tables_4_to_6(image_size):
    G, D = paper_size("resnet", image_size)
    assert (count(G), count(D)) == RESNET[image_size]


def test_resnets_32_pixel_generator_has_the_4276739_parameters_of_its_peers():
    assert count(paper_size("resnet", 32)[0]) == 4_276_739


def shapes(network, x, kind):
    """The shape, without the batch, after each module of this kind, in order of execution."""
    found = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: found.append(tuple(output.shape[1:])))
        for module in network.modules()
        if isinstance(module, kind)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return found


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


@pytest.mark.parametrize(
    ("variant", "widths"),
    [("code", (64, 128, 128, 256, 256, 512, 512)), ("paper", (64, 64, 128, 128, 256, 256, 512))],
)
def test_dcgans_layers_have_the_widths_and_sizes_of_table_3(variant, widths):
    G, D = paper_size("dcgan", 48, arch_variant=variant)
    z, images = torch.empty(2, 128, device="meta"), torch.empty(2, 3, 48, 48, device="meta")
    sizes = [(256, 12, 12), (128, 24, 24), (64, 48, 48), (3, 48, 48)]
    assert shapes(G, z, (nn.ConvTranspose2d, nn.Conv2d)) == sizes
    sizes = (48, 24, 24, 12, 12, 6, 6)
    assert shapes(D, images, nn.Conv2d) == [(c, s, s) for c, s in zip(widths, sizes, strict=True)]
    kernels = [layer.kernel_size[0] for layer in layers_of(D)[:-1]]
    assert kernels == [3, 4, 3, 4, 3, 4, 3] and D.layers[1].negative_slope == 0.1


@pytest.mark.parametrize("variant", dcgan.VARIANTS)
def test_only_the_authors_code_normalises_after_dcgans_linear_layer(variant):
    G, _ = build("dcgan", arch_variant=variant)
    bn_relu = [nn.BatchNorm2d, nn.ReLU]
    start = bn_relu if variant == "code" else []
    assert [type(layer) for layer in G.layers] == start + 3 * [ConvTranspose2d, *bn_relu] + [Conv2d, nn.Tanh]


def test_mlps_layers_have_the_documented_widths():
    G, D = paper_size("mlp", 8, channels=1)
    assert [tuple(layer.weight.shape) for layer in layers_of(G)] == [(256, 128), (512, 256), (1024, 512), (64, 1024)]
    assert [tuple(layer.weight.shape) for layer in layers_of(D)] == [(512, 64), (256, 512), (1, 256)]
    assert [type(layer) for layer in G.layers] == 3 * [nn.Linear, nn.BatchNorm1d, nn.ReLU] + [nn.Linear, nn.Tanh]


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


def test_dcgans_D_starts_from_a_normal_distribution_of_deviation_002():
    _, D = build("dcgan", base_channels=16)
    for layer in layers_of(D):
        n = layer.weight.numel()
        assert abs(layer.weight.std() / 0.02 - 1) < 4 / math.sqrt(n)
        assert abs(layer.weight.mean()) < 4 * 0.02 / math.sqrt(n)


@pytest.mark.parametrize("model", ["dcgan", "resnet"])
def test_biases_start_at_zero_and_batch_norms_at_the_identity(model):
    for network in build(model):
        assert all((parameter == 0).all() for name, parameter in network.named_parameters() if name.endswith("bias"))
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all((module.weight == 1).all() for module in norms)


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


@pytest.mark.parametrize("model", MODELS)
def test_d_norm_is_spectral_by_default_and_g_sn_wraps_all_of_G(model):
    G, D = build_models(model, 16, base_channels=2)
    assert all(is_spectrally_normalized(layer) for layer in layers_of(D))
    assert not any(parametrize.is_parametrized(layer) for layer in layers_of(G))
    G, _ = build(model, 16, g_sn=True)
    assert layers_of(G) and all(is_spectrally_normalized(layer) for layer in layers_of(G))


@pytest.mark.parametrize("model", MODELS)
def test_wrapping_changes_no_initial_weight(model):
    plain, wrapped = build(model, 16), build(model, 16, d_norm="spectral", g_sn=True)
    for ours, theirs in zip(plain, wrapped, strict=True):
        pairs = zip(layers_of(ours), layers_of(theirs), strict=True)
        assert all(torch.equal(a.weight, b.parametrizations.weight.original) for a, b in pairs)


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(model):
    settings = {"d_norm": "spectral", "g_sn": True}
    for one, same, other in zip(*(build(model, 16, seed, **settings) for seed in (0, 0, 1)), strict=True):
        one, same, other = one.state_dict(), same.state_dict(), other.state_dict()
        assert all(torch.equal(one[key], same[key]) for key in one)
        assert not any(torch.equal(one[key], other[key]) for key in one if key.endswith("original"))


def test_build_models_makes_the_pair_that_the_table_names():
    for model, pair in MODELS.items():
        assert tuple(map(type, build(model, 16))) == pair


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model": "biggan"}, "'biggan' is not one of dcgan, resnet, mlp"),
        ({"model": "dcgan", "arch_variant": "thesis"}, "'thesis' is not one of code, paper"),
        ({"model": "resnet", "arch_variant": "paper"}, "arch_variant paper is for dcgan"),
        ({"model": "mlp", "arch_variant": "paper"}, "arch_variant paper is for dcgan"),
        ({"model": "dcgan", "d_norm": "spectra"}, "'spectra' is not one of"),
        ({"model": "dcgan", "image_size": 30}, "multiple of 8, not 30"),
        ({"model": "dcgan", "image_size": 4}, "multiple of 8, not 4"),
        ({"model": "dcgan", "image_size": 0}, "multiple of 8, not 0"),
        ({"model": "resnet", "image_size": 24}, "8, 16, 32, 48, 64, 128 pixels, not 24"),
        ({"model": "resnet", "image_size": 256}, "8, 16, 32, 48, 64, 128 pixels, not 256"),
    ],
)
def test_unknown_names_and_impossible_sizes_are_value_errors(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build(**settings)


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("model", MODELS),
        ("loss", LOSSES),
        ("regularizer", REGULARIZERS),
        ("d_norm", D_NORMS),
        ("arch_variant", dcgan.VARIANTS),
        ("image_size", SIZES),
    ],
)
def test_the_settings_offer_exactly_what_there_is(setting, names):
    assert FIELDS[setting].metadata["choices"] == tuple(names)
