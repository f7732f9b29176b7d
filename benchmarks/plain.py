"""The plain implementation that step_time.py compares with: SN-GAN as most public repositories write it.

It uses torch's own spectral_norm, nn.Upsample before and AvgPool2d after each convolution, two forwards of D, samples
without gradients in D's step, a D that is not frozen in G's step, default Adam, contiguous tensors, and a DataLoader
with transforms and no worker processes (the default).
"""

import copy
import itertools
import re

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision import transforms

from losses import LOSSES
from models import convolution, dcgan, remove_spectral_norm, resnet
from models.resampling import ConvAvgPool2d, UpsampleConv2d
from models.spectral_norm import norm_of


class PlainUpsampleConv2d(nn.Conv2d):
    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class PlainConvAvgPool2d(nn.Conv2d):
    def forward(self, x):
        return F.avg_pool2d(super().forward(x), 2)


class PlainUpBlock(resnet.UpBlock):
    def forward(self, x):
        h = self.conv1(F.relu(self.bn1(x)))
        h = self.conv2(F.relu(self.bn2(h)))
        return h + self.shortcut(F.interpolate(x, scale_factor=2, mode="nearest"))


class PlainDownBlock(resnet.DownBlock):
    def forward(self, x):
        h = x if self.first else F.relu(self.norm1(x))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        shortcut = self.shortcut(x)
        return h + (F.avg_pool2d(shortcut, 2) if self.down else shortcut)


class PlainResnetGenerator(resnet.Generator):
    def forward(self, z):
        h = self.blocks(self.project(z).unflatten(1, (-1, self.bottom, self.bottom)))
        return self.to_image(F.relu(self.bn(h))).tanh()


class PlainResnetDiscriminator(resnet.Discriminator):
    def forward(self, x):
        return self.head(F.relu(self.norm(self.blocks(x))).sum(dim=(2, 3)))


class PlainDcganGenerator(dcgan.Generator):
    def forward(self, z):
        return self.layers(self.project(z).unflatten(1, (-1, self.bottom, self.bottom)))


class PlainDcganDiscriminator(dcgan.Discriminator):
    def forward(self, x):
        return self.head(self.layers(x).flatten(1))


PLAIN = {
    resnet.Generator: PlainResnetGenerator,
    resnet.Discriminator: PlainResnetDiscriminator,
    dcgan.Generator: PlainDcganGenerator,
    dcgan.Discriminator: PlainDcganDiscriminator,
    convolution.Conv2d: nn.Conv2d,
    convolution.ConvTranspose2d: nn.ConvTranspose2d,
    UpsampleConv2d: PlainUpsampleConv2d,
    ConvAvgPool2d: PlainConvAvgPool2d,
    resnet.UpBlock: PlainUpBlock,
    resnet.DownBlock: PlainDownBlock,
}


def plain_copy(network):
    """The same network with the same weights, u and v, in plain layers under torch.nn.utils.spectral_norm."""
    network = copy.deepcopy(network)
    for layer in [layer for layer in network.modules() if norm_of(layer)]:
        parametrization = layer.parametrizations.weight
        weight, u, v = (tensor.detach().clone() for tensor in (parametrization.original, *parametrization[0].buffers()))
        remove_spectral_norm(layer)
        layer.weight = nn.Parameter(weight.contiguous())
        nn.utils.spectral_norm(layer, dim=1 if isinstance(layer, nn.ConvTranspose2d) else 0)
        layer.weight_u.copy_(u)
        layer.weight_v.copy_(v)
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
        if hasattr(module, "inplace"):
            module.inplace = False
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.contiguous()
    return network


def renamed(state):
    """A plain copy's state dict with the names of the network it was copied from."""
    names = {"_orig": ".original", "_u": ".0.u", "_v": ".0.v"}
    return {
        re.sub(r"weight(_orig|_u|_v)$", lambda match: f"parametrizations.weight{names[match[1]]}", name): value
        for name, value in state.items()
    }


def discriminator_step(G, D, d_loss, opt_D, real, z, iterate_once=False):
    """Update D once, with separate forwards for real images and samples. Returns the detached loss.

    iterate_once: no power iteration in the second forward, so that an update has one iteration, as in the paper's
    algorithm 1 and in train.py. Plain implementations have two.
    """
    with torch.no_grad():
        fake = G(z)
    real_logits = D(real)
    if iterate_once:
        D.eval()
    loss = d_loss(real_logits, D(fake))
    D.train()
    opt_D.zero_grad()
    loss.backward()
    opt_D.step()
    return loss.detach()


def generator_step(G, D, g_loss, opt_G, z, real=None, iterate_once=False):
    """Update G once; D's gradients are computed too, and thrown away. Returns the detached loss.

    real: images for losses that compare samples with them. iterate_once: as in D's update.
    """
    logits = [D(G(z))]
    if real is not None:
        if iterate_once:
            D.eval()
        logits.append(D(real))
        D.train()
    loss = g_loss(*logits)
    opt_G.zero_grad()
    loss.backward()
    opt_G.step()
    return loss.detach()


class Pictures(torch.utils.data.Dataset):
    """Images (N, C, H, W) uint8, one at a time through transforms."""

    def __init__(self, images):
        channels = images.size(1)
        self.images = images.permute(0, 2, 3, 1).squeeze(3).numpy()
        mean = (0.5,) * channels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, mean)])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index]))


class PlainRun:
    """Training of the networks of a training.state.State by the plain implementation."""

    def __init__(self, state, images, config):
        self.config = config
        self.G, self.D = plain_copy(state.G).train(), plain_copy(state.D).train()
        self.opt_G = torch.optim.Adam(self.G.parameters(), config.lr_G, betas=config.betas)
        self.opt_D = torch.optim.Adam(self.D.parameters(), config.lr_D, betas=config.betas)
        loader = torch.utils.data.DataLoader(Pictures(images.images), config.batch_size, shuffle=True, drop_last=True)
        self.batches = itertools.chain.from_iterable(itertools.repeat(loader))

    def step(self):
        config, (d_loss, g_loss) = self.config, LOSSES[self.config.loss]
        for _ in range(config.n_dis):
            real = next(self.batches)
            discriminator_step(self.G, self.D, d_loss, self.opt_D, real, torch.randn(len(real), config.z_dim))
        z = torch.randn(config.batch_size_G or config.batch_size, config.z_dim)
        generator_step(self.G, self.D, g_loss, self.opt_G, z)

    @torch.no_grad()
    def sample(self):
        """64 samples, quantised."""
        self.G.eval()
        images = self.G(torch.randn(64, self.config.z_dim))
        self.G.train()
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
