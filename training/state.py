"""All that changes while a run trains."""

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
from utils.errors import Diverged, UserError
from utils.precision import Precision

from .checkpoints import checkpoint
from .checkpoints.run_dir import checkpoint_path, thin
from .ema import EMA
from .objective import Objective

STATISTICS = ("loss_D", "loss_G", "real_logits", "fake_logits", "accuracy_D")  # of a step: means over its images
# What the optimizers keep for each parameter, beside the number of steps.
MOMENTS = {torch.optim.Adam: ("exp_avg", "exp_avg_sq"), torch.optim.RMSprop: ("square_avg",)}


class State:
    """All that changes while a run trains, and so all that a checkpoint holds beside the configuration."""

    def __init__(self, config: Config, images: Images, device: torch.device) -> None:
        self.classes = classes_of(config, images)
        torch.manual_seed(config.seed)
        G, D = checkpoint.models_of(config, self.classes)
        self.G, self.D, self.device = G.to(device), D.to(device), device
        self.objective = Objective.of(config)
        self.precision = {name: Precision(config.amp, device) for name in ("G", "D")}
        self.opt_G = _make_optimizer(config, self.G, config.lr_G)
        self.opt_D = _make_optimizer(config, self.D, config.lr_D)
        self.ema = EMA(self.G) if config.ema_decay else None
        self.seed = config.seed
        labels = images.labels if self.classes else None
        self.batches = Batches(images.images, config.batch_size, config.seed, device, labels)
        self.data_sha256 = images.sha256()
        # One stream for z, dequantization and interpolation, apart from torch's global one, which libraries may use.
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.parallel = {name: parallel(network, device) for name, network in (("G", self.G), ("D", self.D))}
        if config.compile and device.type == "cuda":
            self.G.compile()
            self.D.compile()
        # How likely each augmentation is: of the settings, or ADA's, which moves and is never waited for
        self.adaptive = config.augment_p == "adaptive"
        p = 0.0 if self.adaptive else float(config.augment_p)
        self.augment_p = torch.tensor(p, dtype=torch.float64, device=device)
        self.step = self.rollbacks = 0
        # The STATISTICS of the steps since the last line of the log: of this rank, and of all
        self.pending: list[Tensor] = []
        self.averaged: list[Tensor] = []

    @property
    def scored(self) -> nn.Module:
        """The generator that is sampled and scored: the EMA where there is one."""
        return self.ema.G if self.ema else self.G

    def history(self) -> Tensor:
        """The STATISTICS over all ranks of each step since the last line of the log. Every rank has to ask."""
        if self.pending:
            self.averaged += average(torch.stack(self.pending))
            self.pending = []
        return torch.stack(self.averaged) if self.averaged else torch.empty(0, len(STATISTICS))

    def change_seed(self) -> None:
        """Other noise and another data order from here on, as after a rollback."""
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
            "scalers": {name: precision.state_dict() for name, precision in self.precision.items()},
            "random": self.random.get_state(),
            "data": {**self.batches.state_dict(), "sha256": self.data_sha256},
            "pending": torch.stack(self.averaged) if self.averaged else None,
            "rollbacks": self.rollbacks,
            "logit_averages": self.objective.averages.values if self.objective.averages else None,
            "augment_p": self.augment_p if self.adaptive else None,
            **checkpoint.stored_classes(self.classes),
        }

    def load_state_dict(self, content: dict[str, Any], path: str | Path) -> list[str]:
        """Take over what a loaded checkpoint holds; path is for the messages. UserError where it does not fit.

        Returns sentences about what could not be taken over.
        """
        notes = []
        if (trained := checkpoint.classes_of(content, checkpoint.config_of(content, path), path)) != self.classes:
            told = checkpoint.other_classes(trained, self.classes)
            raise UserError(
                f"{path} was trained on other classes than there are now ({told}): bring them back, or start a new run "
                "with --init_from"
            )
        if content["data"].get("sha256") != self.data_sha256:
            raise UserError(f"{path} was trained on other data than there are now: the same --data_dir, unchanged?")
        networks = {"G": self.G, "D": self.D} | ({"ema": self.ema.G} if self.ema else {})
        for name, network in networks.items():
            checkpoint.load_weights(network, content[name], path, "EMA" if name == "ema" else name)
        for name, optimizer in (("opt_G", self.opt_G), ("opt_D", self.opt_D)):
            with checkpoint.fitting(path, f"optimizer of {name[-1]}"):
                _load_optimizer(optimizer, content[name])
        with checkpoint.fitting(path, "random state, data order, averages, scaler or augmentation"):
            if content["random"].shape == self.random.get_state().shape:
                self.random.set_state(content["random"])
            else:
                self.random.manual_seed(derived_seed(self.seed, content["step"]))
                notes.append("the checkpoint is of another kind of device, so that other random numbers follow")
            self.batches.load_state_dict(content["data"])
            for name, precision in self.precision.items():
                precision.load_state_dict(content.get("scalers", {}).get(name))
            pending = content["pending"]
            if pending is not None and pending.size(-1) != len(STATISTICS):
                pending = None
                notes.append(f"{path} has other statistics of its last steps, which are left out of the next line")
            if pending is None:
                pending = torch.empty(0)
            rows = list(pending.to(self.device, torch.float32).view(-1, len(STATISTICS)))
            rollbacks = content.get("rollbacks", 0)
            if type(rollbacks) is not int or rollbacks < 0:
                raise ValueError(f"rollbacks {short(rollbacks)}")
            if self.objective.averages:
                self.objective.averages.values = _averages(content.get("logit_averages")).to(self.device)
            p = _probability(content.get("augment_p")) if self.adaptive else self.augment_p
        self.augment_p = p.to(self.device)
        self.step, self.rollbacks, self.pending, self.averaged = content["step"], rollbacks, [], rows
        return notes


def _probability(p: Any) -> Tensor:
    if not isinstance(p, Tensor) or p.shape or not 0 <= p <= 1:
        raise ValueError(f"augment_p {short(p)}, which is no probability")
    return p.double()


def _averages(values: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise ValueError("no averages of D's logits, which LeCam's penalty needs")
    if values.shape != (2,) or not values.isfinite().all():
        raise ValueError(f"averages of D's logits {short(values.tolist())}")
    return values.float()


def _load_optimizer(optimizer: Optimizer, content: dict[str, Any]) -> None:
    """optimizer.load_state_dict(content), with every part checked: what does not fit would fail in the next step."""
    settings = [{name: group[name] for name in group if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(content)
    for group, own in zip(optimizer.param_groups, settings):
        group.update(own)  # the settings are the configuration's, and torch's versions have different ones
        for parameter in group["params"] if optimizer.state else []:
            state = optimizer.state[parameter]
            expected = dict.fromkeys(MOMENTS[type(optimizer)], parameter.shape) | {"step": ()}
            if {name: tuple(value.shape) for name, value in state.items()} != expected:
                raise ValueError(f"not {', '.join(expected)} of its parameters")
            for name in MOMENTS[type(optimizer)]:  # fused updates go through memory: in the parameter's layout
                state[name] = torch.empty_like(parameter).copy_(state[name])


def _make_optimizer(config: Config, network: nn.Module, lr: float) -> Optimizer:
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr, foreach=True)
    return torch.optim.Adam(network.parameters(), lr, betas=config.betas, fused=True)


def disk_use(state: State, keep: int) -> int:
    """Bytes that the checkpoints that are kept take, the one that is being written included."""
    networks = [state.G, state.D] + ([state.ema.G] if state.ema else [])
    values = sum(tensor.numel() * tensor.element_size() for net in networks for tensor in net.state_dict().values())
    adam = 2 * sum(p.numel() * p.element_size() for net in (state.G, state.D) for p in net.parameters())
    return (values + adam) * (keep + 1)


def check_weights(state: State) -> None:
    """Raise Diverged where a weight, or what a normalization keeps beside it, is not finite."""
    for name, network in (("G", state.G), ("D", state.D)):
        if not all(value.isfinite().all() for value in network.state_dict().values()):
            raise Diverged(f"a weight of {name} is not finite at step {state.step}")


def save_checkpoint(run_dir: str | Path, state: State, config: Config) -> Path:
    """Save the run's whole state and thin the older checkpoints; Diverged instead where a weight is not finite."""
    check_weights(state)
    path = checkpoint_path(run_dir, state.step)

    def write():
        files.save(path, {"format": checkpoint.FORMAT, "config": stored(config), **state.state_dict()})
        thin(run_dir, config.keep)

    on_rank_zero(write)
    return path
