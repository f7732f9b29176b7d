"""What becomes of a checkpoint's state on another device, or of another version of the project or of torch."""

import pytest
import torch
from helpers import assert_same_end, go_on, logged, rewrite, start

import train
from training.checkpoints import checkpoint

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_a_checkpoint_of_another_kind_of_device_goes_on_with_other_random_numbers_and_says_so(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, lambda content: content.update(random=torch.zeros(16, dtype=torch.uint8)))  # as CUDA's are
    assert checkpoint.read(go_on(tmp_path, total_steps=4))["step"] == 4
    assert "changed     the checkpoint is from another kind of device" in capsys.readouterr().out


def test_a_checkpoint_with_other_statistics_of_its_last_steps_goes_on_without_them(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=3, save_every=3, log_every=2))
    rewrite(path, lambda content: content.update(pending=torch.ones(1, 4)))
    go_on(tmp_path, total_steps=4)
    assert "has other statistics of its last steps" in capsys.readouterr().out
    assert logged(tmp_path / "run") == [2, 3, 4]


def test_the_settings_of_an_optimizer_of_another_version_of_torch_are_replaced(tmp_path):
    def change(content):
        group = content["opt_G"]["param_groups"][0]
        del group["decoupled_weight_decay"]  # which older versions do not have
        group |= {"lr": 7.0, "of_another_version": True}

    train.train(start(tmp_path, "whole", total_steps=4))
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, change)
    last = go_on(tmp_path, total_steps=4)
    rewrite(last, lambda content: content["opt_G"]["param_groups"][0].pop("of_another_version"))
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_a_checkpoint_from_before_the_scalers_can_be_resumed(tmp_path):
    def change(content):
        del content["scalers"]
        for optimizer in ("opt_G", "opt_D"):  # as optimizers were then
            for group in content[optimizer]["param_groups"]:
                group["fused"] = None

    rewrite(train.train(start(tmp_path, total_steps=2)), change)
    assert checkpoint.read(go_on(tmp_path, total_steps=3))["step"] == 3
