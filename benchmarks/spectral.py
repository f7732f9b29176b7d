"""Measurements for docs/spectral_normalization.md with this project's own functions, without drawing."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import utils  # noqa: F401, before torch is loaded: it sets how threads wait

# isort: split
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import train
from datasets import load_split, to_float
from evaluation.discriminator import lipschitz
from losses import LOSSES
from models.spectral_norm import power_iteration, spectral_norm
from models.weights import weight_matrix
from settings.layers import resolve
from training.state import State

# The demo's preset in small, at twice its learning rate
TRAINING = {"dataset": "digits", "model": "dcgan", "base_channels": 16, "ema_decay": 0.0, "lr_G": 1e-3, "lr_D": 1e-3}
STEPS, LOOK_EVERY, IMAGES = 600, 50, 128
FOLLOWED = "layers.5"  # the layer of D whose weights are recorded: 32 x 144


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ellipse(W):
    """The image of the unit circle under W (2, 2), as points (2, n), and sigma, u, v by power iteration."""
    angles = torch.linspace(0, 2 * torch.pi, 361, dtype=W.dtype)
    circle = torch.stack([angles.cos(), angles.sin()])
    return circle, W @ circle, power_iteration(W, torch.ones(2, dtype=W.dtype), 100)


def with_singular_values(values, seed=0):
    """A square matrix with these singular values, float64, and its first left singular vector."""
    n = len(values)
    U, V = (torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator(seed + i)))[0] for i in (0, 1))
    return U @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ V.t(), U[:, 0]


def closing_in(W, first, iterations, seed=2):
    """Errors of power iteration from a random u: (tan of the angle between u and first, 1 - estimate / sigma).

    first: the first left singular vector. Both results are (iterations,) float64.
    """
    u = F.normalize(torch.randn(len(W), dtype=W.dtype, generator=generator(seed)), dim=0)
    sigma, tangents, errors = torch.linalg.svdvals(W)[0], [], []
    for _ in range(iterations):
        estimate, u, _ = power_iteration(W, u)
        along = torch.dot(u, first).abs()
        tangents.append((u - torch.dot(u, first) * first).norm() / along)
        errors.append(1 - estimate / sigma)
    return torch.stack(tangents), torch.stack(errors)


def following(weights, iterations, carried, seed=0):
    """Estimates of sigma for the matrices of a changing weight, divided by the true sigma: (len(weights),) float64."""
    drawn, shares, u = generator(seed), [], None
    for W in (W.double() for W in weights):
        if u is None or not carried:
            u = F.normalize(torch.randn(len(W), dtype=W.dtype, generator=drawn), dim=0)
        estimate, u, _ = power_iteration(W, u, iterations)
        shares.append(estimate / torch.linalg.svdvals(W)[0])
    return torch.stack(shares)


def small_loss(W, seed=0):
    """A hinge loss of D(x) = sum(leaky_relu(W x)) on two clouds of points, for W of 6 columns."""
    real, fake = torch.randn(2, 64, 6, dtype=W.dtype, generator=generator(seed)) + torch.tensor([[[0.3]], [[-0.3]]])
    return LOSSES["hinge"][0](*(F.leaky_relu(x @ W.t(), 0.1).sum(dim=1, keepdim=True) for x in (real, fake)))


def gradients(seed=0):
    """The gradient of small_loss() at W_SN, g, and at W under spectral_norm(), with both matrices: a dict of (6, 6)."""
    torch.manual_seed(seed)
    layer = spectral_norm(nn.Linear(6, 6, bias=False).double(), n_power_iterations=200)
    layer(torch.zeros(1, 6, dtype=torch.float64))  # a training forward, which iterates
    W, W_SN = layer.parametrizations.weight.original, layer.weight
    dW, g = torch.autograd.grad(small_loss(W_SN), (W, W_SN))
    return {"W": W.detach(), "W_SN": W_SN.detach(), "g": g, "dW": dW}


def components(found):
    """u_i^T g v_i and sigma u_i^T dW v_i for the singular vectors u_i, v_i of W: two (6,), in falling order of s_i."""
    U, S, Vh = torch.linalg.svd(found["W"])
    return [torch.diagonal(U.t() @ gradient @ Vh.t()) for gradient in (found["g"], S[0] * found["dW"])]


def along(gradient, W):
    """The cosine between a gradient and W, as vectors."""
    return F.cosine_similarity(gradient.flatten(), W.flatten(), dim=0).item()


def training(d_norm, steps=STEPS, look_every=LOOK_EVERY, images=IMAGES, **flags):
    """A short training of the preset on digits, D normalised by d_norm.

    Returns (the matrices of layer FOLLOWED before each update of D, {step: audit of D}).
    """
    config, _ = resolve({**TRAINING, "d_norm": d_norm, **flags})
    data = load_split(config)
    state = State(config, data, torch.device("cpu"))
    real, z = to_float(data.images[:images], generator()), torch.randn(images, config.z_dim, generator=generator(1))
    layer = state.D.get_submodule(FOLLOWED)
    name = "parametrizations.weight.original" if parametrize.is_parametrized(layer, "weight") else "weight"
    weights, audits = [], {}
    for step in range(1, steps + 1):
        weights.append(weight_matrix(layer.get_parameter(name).detach().clone()))
        state.G.train()
        state.D.train()
        train.step(state, config)
        if step % look_every == 0:
            with torch.no_grad():
                fake = state.G.eval()(z)
            audits[step] = lipschitz.audit(state.D, real, fake)
    return weights, audits


def largest_gain(layer):
    """The largest ratio of a convolution's norm to its reshaped weight's: sqrt(the number of windows with a pixel)."""
    size, _, stride = layer["kind"].removeprefix("Conv2d ").partition(", stride ")
    return np.sqrt(np.prod([np.ceil(int(side) / int(stride or 1)) for side in size.split("x")]))
