"""Runs that were killed, damaged or rolled back go on, and end as if nothing had been (docs/faults.md)."""

import os
import signal

import pytest
import torch
from helpers import FAST, assert_same_end, break_losses, go_on, logged, rewrite, start, steps_of

import train
from training import prepare
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import checkpoints, latest
from training.reporting.logger import read_stats
from utils.errors import Diverged, UserError

pytestmark = pytest.mark.usefixtures("no_pictures", "fast_bf16")


def test_resume_takes_a_run_and_names_the_one_of_a_file(whole, tmp_path):
    newest = latest(whole)
    with pytest.raises(UserError, match=rf"{newest} is a file: did you mean --resume {whole}\?$"):
        prepare({"resume": str(newest)})
    (tmp_path / "G.pt").touch()
    with pytest.raises(UserError, match=r"G\.pt is a file: did you mean --init_from\?$"):
        prepare({"resume": str(tmp_path / "G.pt")})


TRAIN = """
import train
import utils.precision
utils.precision.bf16_gain = lambda: 2.0
train.main()
"""


def typed(tmp_path, **flags):
    """What is typed for a run of helpers.start()."""
    settings = {**FAST, **flags, "run_dir": tmp_path / "run"}
    words = []
    for name, value in settings.items():
        if isinstance(value, tuple):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}" if value is True else f"--{name}={value}")
    return words


KILLED_IN_STEP_9 = """
import builtins, os, signal
from helpers import at_step
at_step(builtins, 9, lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize(
    ("model", "others"),
    [
        ("dcgan", {"conditional": "acgan"}),
        ("resnet", {"conditional": "projection", "attention": 4}),
        ("mlp", {"conditional": "concat", "mirror": True}),
        ("dcgan", {"amp": "bf16"}),
        ("resnet", {}),
        ("mlp", {}),
        ("mlp", {"loss": "relativistic", "regularizer": ("r1_r2", "lecam"), "lecam_start": 3}),
        ("mlp", {"regularizer": ("r1", "approximate_r2"), "regularizer_every": 4}),  # killed after updates 17 of D
    ],
)
def test_train_kill_resume_equals_the_run_without_the_kill_bit_by_bit(tmp_path, forks, model, others):
    flags = {
        "model": model,
        **others,
        "g_sn": True,
        "n_dis": 2,
        "lr_decay": "linear",
        "log_every": 3,
        "sample_every": 4,
    }
    train.train(start(tmp_path, "whole", **flags))
    killed = forks.run(KILLED_IN_STEP_9 + TRAIN, *typed(tmp_path, **flags))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert latest(tmp_path / "run").name == "step_000005.pt"
    assert logged(tmp_path / "run")[-1] == 6  # beyond the checkpoint: dropped and written again
    threads = torch.get_num_threads()
    go_on(tmp_path)
    assert torch.get_num_threads() == threads
    assert_same_end(tmp_path / "whole", tmp_path / "run")


KILLED_WHILE_SAVING = """
import os, signal, torch
plain, calls = torch.save, []
def half(content, file):
    calls.append(None)
    plain(content, file)
    if len(calls) == 3:
        file.truncate(file.tell() // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
"""


def test_a_run_that_is_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path, forks, whole):
    killed = forks.run(KILLED_WHILE_SAVING + TRAIN, *typed(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "run" / "checkpoints" / "step_000010.pt.tmp").exists()
    assert steps_of(tmp_path / "run") == [0, 5]
    go_on(tmp_path)
    assert_same_end(whole, tmp_path / "run")
    assert not list((tmp_path / "run" / "checkpoints").glob("*.tmp"))


# ---- What may change -----------------------------------------------------------------------------------------------


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path):
    path = train.train(start(tmp_path))
    before = path.read_bytes()
    assert go_on(tmp_path) == path
    assert path.read_bytes() == before
    assert logged(tmp_path / "run") == [2, 4, 6, 8, 10, 12]


def test_a_resumed_run_may_go_further_but_not_change_its_model(tmp_path):
    train.train(start(tmp_path, total_steps=4))
    assert checkpoint.read(go_on(tmp_path, total_steps=6))["step"] == 6
    with pytest.raises(UserError, match="--model resnet cannot change"):
        prepare({"resume": str(tmp_path / "run"), "model": "resnet"})
    with pytest.raises(UserError, match=r"^--d_norm spectral batch cannot change .* has spectral\."):
        prepare({"resume": str(tmp_path / "run"), "d_norm": ("spectral", "batch")})


@pytest.mark.parametrize("values", [None, torch.zeros(3), torch.tensor([0.0, float("nan")])], ids=["none", "3", "nan"])
def test_a_checkpoint_with_averages_that_are_none_is_refused(tmp_path, values):
    path = train.train(start(tmp_path, total_steps=2, regularizer=("lecam",), lecam_start=1))
    rewrite(path, lambda content: content.update(logit_averages=values))
    with pytest.raises(UserError, match="averages of D's logits"):
        go_on(tmp_path, total_steps=4)


def test_a_run_on_other_data_is_not_resumed(tmp_path, image_folder):
    flags = {"dataset": "folder", "data_dir": str(image_folder), "image_size": 8, "total_steps": 3}
    train.train(start(tmp_path, **flags))
    (image_folder / "dark" / "00.png").unlink()
    with pytest.raises(UserError, match="trained on other data than there are now"):
        go_on(tmp_path, total_steps=6)


def test_a_checkpoint_of_a_version_without_a_setting_takes_its_default_and_says_so(tmp_path, capsys):
    path = train.train(start(tmp_path, total_steps=2))
    rewrite(path, lambda content: [content["config"].pop(name) for name in ("accumulate", "on_nan")])
    rewrite(path, lambda content: [content.pop(name) for name in ("rollbacks", "scalers")])
    assert checkpoint.read(go_on(tmp_path, total_steps=4))["step"] == 4
    assert "step_000002.pt is from a version without accumulate, on_nan: the defaults" in capsys.readouterr().out


def test_a_checkpoint_with_a_setting_of_a_newer_version_is_refused(tmp_path):
    train.train(start(tmp_path, total_steps=2))
    for _, path in checkpoints(tmp_path / "run"):
        rewrite(path, lambda content: content["config"].update(label_smoothing=0.1))
    with pytest.raises(UserError, match=r"unknown setting 'label_smoothing'.*newer version"):
        go_on(tmp_path, total_steps=4)


# ---- Damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "a bit flipped", "empty", "another file"])
def test_a_damaged_newest_checkpoint_is_set_aside_and_the_one_before_is_taken(tmp_path, capsys, damage):
    path = train.train(start(tmp_path))
    whole = path.read_bytes()
    torch.save({"weights": torch.zeros(3)}, path)
    other = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes({"truncated": whole[:1000], "a bit flipped": flipped, "empty": b"", "another file": other}[damage])
    capsys.readouterr()
    assert checkpoint.read(go_on(tmp_path))["step"] == 12
    printed = capsys.readouterr().out
    assert "resumed     at step 10" in printed
    assert "step_000012.pt is not a checkpoint of this project" in printed and "is set aside" in printed
    assert sorted(os.listdir(path.parent))[-2:] == ["step_000012.pt", "step_000012.pt.damaged"]
    assert logged(tmp_path / "run") == [2, 4, 6, 8, 10, 12]


def test_a_newest_checkpoint_that_is_whole_but_cannot_be_used_is_not_passed_over(tmp_path):
    path = train.train(start(tmp_path))
    rewrite(path, lambda content: content["config"].update(label_smoothing=0.1))
    with pytest.raises(UserError, match=r"step_000012.pt.*label_smoothing"):
        go_on(tmp_path, total_steps=14)
    assert steps_of(tmp_path / "run") == [5, 10, 12]


def test_a_run_whose_checkpoints_are_all_damaged_says_why(tmp_path):
    train.train(start(tmp_path))
    for _, path in checkpoints(tmp_path / "run"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no checkpoint that can be read: .*step_000012.pt.*step_000005.pt"):
        go_on(tmp_path)


# ---- Rollback ------------------------------------------------------------------------------------------------------


def test_rollback_goes_back_to_the_last_good_checkpoint_with_another_seed(tmp_path, whole, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        break_losses(patched, {8})
        train.train(start(tmp_path, on_nan="rollback"))
    assert "rollback    loss_D is not finite at step 8" in capsys.readouterr().out
    found = checkpoint.read(latest(tmp_path / "run"))
    assert (found["step"], found["rollbacks"]) == (12, 1)
    assert found["data"]["seed"] != 0
    assert logged(tmp_path / "run") == [2, 4, 6, 8, 10, 12]
    before, after = read_stats(whole), read_stats(tmp_path / "run")
    assert [line["loss_D"] for line in before[:2]] == [line["loss_D"] for line in after[:2]]
    assert before[2]["loss_D"] != after[2]["loss_D"]


def test_a_run_that_was_rolled_back_resumes_exactly(tmp_path, monkeypatch):
    for name, total in (("whole", 12), ("run", 10)):
        with monkeypatch.context() as patched:
            break_losses(patched, {8})
            train.train(start(tmp_path, name, on_nan="rollback", total_steps=total))
    go_on(tmp_path, total_steps=12)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_rollback_gives_up_after_three_times(tmp_path, monkeypatch, capsys):
    break_losses(monkeypatch, range(7, 1000))
    with pytest.raises(Diverged, match=r"last good checkpoint is .*step_000005.pt, after 3 rollbacks"):
        train.train(start(tmp_path, on_nan="rollback"))
    assert capsys.readouterr().out.count("rollback ") == 3
    assert checkpoint.read(latest(tmp_path / "run"))["rollbacks"] == 3
