"""The state of a run: everything that changes during training."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets import Batches, Images, classes_of, derived_seed
from settings.config import Config, stored
from settings.layers import short
from utils import files
from utils.distributed import average, on_rank_zero, parallel
from utils.errors import Diverged, UserError, refuse_if
from utils.precision import Precision

from .checkpoints.checkpoint import FORMAT, Checkpoint, fitting, load_weights, models_of, other_classes, stored_classes
from .checkpoints.run_dir import checkpoint_path, thin
from .ema import EMA
from .objective import Objective

STATISTICS = ("loss_D", "loss_G", "real_logits", "fake_logits", "accuracy_D")  # of a step: means over its images
# The tensors that an optimizer keeps for each parameter, in addition to the number of steps.
MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}


class State:
    """Everything that changes during training; a checkpoint holds this and the configuration."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.classes = classes_of(config, images)
        torch.manual_seed(config.seed)
        G, D = models_of(config, self.classes)
        self.G, self.D, self.device = G.to(device), D.to(device), device
        self.objective = Objective.of(config)
        self.precision = {name: Precision(config.amp, device) for name in ("G", "D")}
        self.opt_G = _make_optimizer(config, self.G, config.lr_G)
        self.opt_D = _make_optimizer(config, self.D, config.lr_D)
        self.ema = EMA(self.G) if config.ema_decay else None
        self.seed = config.seed
        labels = images.labels if self.classes else None
        self.batches = Batches(images.images, config.batch_size, config.seed, device, labels)
        self.images, self.data_sha256 = images, images.sha256()
        # One stream for z, dequantization and interpolation; not torch's global one, which libraries may use.
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.parallel = {name: parallel(network, device) for name, network in (("G", self.G), ("D", self.D))}
        if config.compile and device.type == "cuda":
            self.G.compile()
            self.D.compile()
        # The probability of each augmentation: fixed, or moved by ADA; on the device, so that nothing waits for it
        self.adaptive = config.augment_p == "adaptive"
        p = 0.0 if self.adaptive else float(config.augment_p)
        self.augment_p = torch.full((), p, device=device)
        self.step = self.rollbacks = 0
        # The STATISTICS of the steps since the last line of the log: this rank's, and those averaged over all ranks
        self.pending: list[Tensor] = []
        self.averaged: list[Tensor] = []

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that a checkpoint holds: G, D and the EMA, if there is one."""
        return {"G": self.G, "D": self.D} | ({"EMA": self.ema.G} if self.ema else {})

    @property
    def scored(self) -> nn.Module:
        """The generator that is sampled and scored: the EMA if there is one, otherwise G."""
        return self.ema.G if self.ema else self.G

    def history(self) -> Tensor:
        """The STATISTICS of each step since the last line of the log, over all ranks. Call it on every rank."""
        if self.pending:
            self.averaged += average(torch.stack(self.pending))
            self.pending = []
        return torch.stack(self.averaged) if self.averaged else torch.empty(0, len(STATISTICS))

    def change_seed(self) -> None:
        """Switch to other noise and another data order, after a rollback."""
        self.rollbacks += 1
        seed = derived_seed(self.seed, self.rollbacks)
        self.random.manual_seed(seed)
        self.batches.change_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "G": self.G.state_dict(),
            "D": self.D.state_dict(),
            "ema": self.ema.G.state_dict() if self.ema else None,
            "opt_G": self.opt_G.state_dict(),
            "opt_D": self.opt_D.state_dict(),
            "scalers": {name: precision.scaler.state_dict() for name, precision in self.precision.items()},
            "random": self.random.get_state(),
            "data": {**self.batches.state_dict(), "sha256": self.data_sha256},
            "pending": torch.stack(self.averaged) if self.averaged else None,
            "rollbacks": self.rollbacks,
            "logit_averages": self.objective.averages.values if self.objective.averages else None,
            "augment_p": self.augment_p if self.adaptive else None,
            **stored_classes(self.classes),
        }

    def load(self, saved: Checkpoint) -> list[str]:
        """Restore a checkpoint; return sentences on what could not be restored. Raises UserError if it does not fit."""
        content, path = saved.content, saved.path
        self._check_same_data(saved)
        for name, network in self.networks.items():
            load_weights(network, saved.weights(name), path, name)
        for name, optimizer in (("G", self.opt_G), ("D", self.opt_D)):
            with fitting(path, f"optimizer of {name}"):
                _load_optimizer(optimizer, content[f"opt_{name}"])
        with fitting(path, "random state"):
            notes = self._load_random(content)
        with fitting(path, "data order"):
            self.batches.load_state_dict(content["data"])
        with fitting(path, "scaler or augmentation"):
            for name, precision in self.precision.items():
                if state := content.get("scalers", {}).get(name):  # empty without fp16
                    precision.scaler.load_state_dict(state)
            if self.adaptive:
                p = content["augment_p"].item()
                if not 0 <= p <= 1:
                    raise ValueError(f"augment_p is {p}")
                self.augment_p.fill_(p)
        with fitting(path, "averages of D's logits"):
            if self.objective.averages:
                values = content["logit_averages"]
                if values.shape != (2,) or not values.isfinite().all():
                    raise ValueError(f"logit_averages is {short(values)}")
                self.objective.averages.values = values.to(self.device, torch.float32)
        with fitting(path, "statistics"):
            notes += self._load_statistics(content["pending"], path)
        self.step = saved.step
        return notes

    def _check_same_data(self, saved: Checkpoint) -> None:
        """Raise UserError if the checkpoint was trained on other images or classes."""
        if saved.classes != self.classes:
            told = other_classes(saved.classes, self.classes)
            raise UserError(
                f"{saved.path} was trained on other classes than there are now ({told}): bring them back, or start a "
                "new run with --init_from"
            )
        other = f"{saved.path} was trained on other data than there are now: is --data_dir the same, and unchanged?"
        refuse_if(not self.images.is_of(saved.content["data"].get("sha256")), other)

    def _load_random(self, content: dict[str, Any]) -> list[str]:
        self.rollbacks = content.get("rollbacks", 0)
        if type(self.rollbacks) is not int or self.rollbacks < 0:
            raise ValueError(f"rollbacks {short(self.rollbacks)}")
        if content["random"].shape == self.random.get_state().shape:
            self.random.set_state(content["random"])
            return []
        self.random.manual_seed(derived_seed(self.seed, content["step"]))
        return ["the checkpoint is from another kind of device, so different random numbers follow"]

    def _load_statistics(self, rows: Tensor | None, path: Path) -> list[str]:
        """Restore the STATISTICS since the last line of the log. rows: (steps, 5), or None."""
        self.pending, self.averaged = [], []
        if rows is not None and rows.size(-1) != len(STATISTICS):
            return [f"{path} has other statistics of its last steps; they are left out of the next line of the log"]
        if rows is not None:
            self.averaged = list(rows.to(self.device, torch.float32).view(-1, len(STATISTICS)))
        return []


def _load_optimizer(optimizer: Optimizer, content: dict[str, Any]) -> None:
    """Load an optimizer's state. Raises ValueError if a part has the wrong shape, which would fail in the next step."""
    settings = [{name: group[name] for name in group if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(content)
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)  # the configuration decides the settings, and versions of torch have different ones
        for parameter in group["params"] if optimizer.state else []:
            state = optimizer.state[parameter]
            expected = dict.fromkeys(MOMENTS[type(optimizer)], parameter.shape) | {"step": ()}
            if {name: tuple(value.shape) for name, value in state.items()} != expected:
                raise ValueError(f"not {', '.join(expected)} of its parameters")
            for name in MOMENTS[type(optimizer)]:  # fused updates need them in the parameter's memory layout
                state[name] = torch.empty_like(parameter).copy_(state[name])


def _make_optimizer(config: Config, network: nn.Module, lr: float) -> Optimizer:
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr, foreach=True)
    return torch.optim.Adam(network.parameters(), lr, betas=config.betas, fused=True)


def disk_use(state: State, keep: int) -> int:
    """The bytes of `keep` checkpoints and of the one being written."""
    networks = [net.state_dict().values() for net in state.networks.values()]
    adam = [list(net.parameters()) * 2 for net in (state.G, state.D)]
    return sum(tensor.nbytes for tensors in (*networks, *adam) for tensor in tensors) * (keep + 1)


def check_weights(state: State) -> None:
    """Raise Diverged if a weight or a buffer of G or D is not finite."""
    for name, network in (("G", state.G), ("D", state.D)):
        if not all(value.isfinite().all() for value in network.state_dict().values()):
            raise Diverged(f"a weight of {name} is not finite at step {state.step}")


def save_checkpoint(run_dir: str | Path, state: State, config: Config) -> Path:
    """Save the whole state of a run and delete older checkpoints. Raises Diverged if a weight is not finite."""
    check_weights(state)
    path = checkpoint_path(run_dir, state.step)

    def write():
        files.save(path, {"format": FORMAT, "config": stored(config), **state.state_dict()})
        thin(run_dir, config.keep)

    on_rank_zero(write)
    return path
