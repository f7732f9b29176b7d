"""The weight of a layer as the matrix that is normalised (Miyato et al. 2018, section 2.1), and back."""

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .precision import widened

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SUPPORTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


def weight_matrix(weight: Tensor, transposed: bool = False, groups: int = 1) -> Tensor:
    """Reshape a weight to (d_out, d_in / groups * kernel size): a row for each output (in an Embedding, each entry).

    A transposed convolution stores (d_in, d_out / groups, ...): its output channels move to the front, group by group.
    """
    return (_swapped(weight, groups) if transposed else weight).flatten(1)


def _swapped(weight: Tensor, groups: int) -> Tensor:
    """Exchange inputs and outputs within each group: (groups * i, o, ...) -> (groups * o, i, ...)."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


class MatrixNorm(nn.Module):
    """A parametrization that rescales the matrix of a layer's weight: forward(weight) -> weight of the same shape."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.transposed, self.groups = isinstance(layer, TRANSPOSED), getattr(layer, "groups", 1)

    def matrix(self, weight: Tensor) -> Tensor:
        """The reshaped weight (d_out, d_in * kernel size), in float32 at least, so that no norm overflows."""
        W = weight_matrix(weight, self.transposed, self.groups)
        return widened(W)

    def from_matrix(self, W: Tensor, weight: Tensor) -> Tensor:
        """Undo matrix(): W in the shape and precision of weight."""
        W = W.to(weight.dtype)
        if not self.transposed:
            return W.view(weight.shape)
        return _swapped(W.view(len(W), -1, *weight.shape[2:]), self.groups)


def check_layer(layer: nn.Module) -> None:
    """Raise TypeError if the layer has no weight matrix, ValueError if its weight is already parametrized."""
    if not isinstance(layer, SUPPORTED):
        raise TypeError(f"only Linear, Embedding and convolutions have a weight matrix, not {type(layer).__name__}")
    if parametrize.is_parametrized(layer, "weight"):
        raise ValueError(f"the weight of this {type(layer).__name__} is parametrized already")


def fold_weight(layer: nn.Module) -> None:
    """Replace the parametrized weight of a layer by a plain one of the same value."""
    # A deep copy shares the original's class, and so its property `weight`: give this layer a class of its own first.
    shared = type(layer)
    layer.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
