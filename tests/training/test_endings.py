"""What a run leaves when it ends, however it ends, and what the next start makes of that."""

import signal
import subprocess

import pytest
import yaml
from helpers import at_step, go_on, start, steps_of

import train
from training import prepare
from training.checkpoints import record
from training.checkpoints.run_dir import check_disk, is_free
from utils.errors import Diverged, Stopped, UserError

pytestmark = pytest.mark.usefixtures("no_pictures")


def log_of(tmp_path):
    return (tmp_path / "run" / "log.txt").read_text()


def test_the_log_says_how_a_run_ended(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped):
            train.train(start(tmp_path))
    assert "ended       at step 7: SIGTERM: stopped after step 7 and saved" in log_of(tmp_path)
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go_on(tmp_path)
    assert log_of(tmp_path).endswith("ended       at step 8: division by zero\n")
    go_on(tmp_path)
    assert log_of(tmp_path).endswith("ended       at step 12: finished\n")
    with pytest.raises(Diverged):
        train.train(start(tmp_path, "other", lr_D=1e30, d_norm=("none",), loss="wasserstein", log_every=1))
    assert "not finite at step" in (tmp_path / "other" / "log.txt").read_text().splitlines()[-1]


def test_a_run_whose_losses_are_finite_and_huge_is_said_to_have_diverged(tmp_path):
    train.train(start(tmp_path, lr_D=1e3, d_norm=("none",), loss="wasserstein", log_every=5))
    assert log_of(tmp_path).count("beyond 1,000,000: the run has diverged. A smaller learning rate") == 1


def test_the_log_has_the_scores(tmp_path, call, data_dir, unscored):
    config = start(tmp_path, total_steps=2)
    train.train(config)
    assert call("evaluate.py", tmp_path / "run", "--data_dir", data_dir).returncode == 0
    assert "scores of " in log_of(tmp_path) and "  IS 1.00 +- 0.00, FID " in log_of(tmp_path)


def test_a_run_that_failed_before_its_first_checkpoint_is_begun_anew_in_its_place(tmp_path, monkeypatch):
    def full(*args):
        raise UserError("cannot write")

    with monkeypatch.context() as patch:
        patch.setattr("training.session.save_checkpoint", full)
        with pytest.raises(UserError, match="cannot write"):
            train.train(start(tmp_path))
    assert (tmp_path / "run" / "log.txt").is_file() and is_free(tmp_path / "run")
    train.train(start(tmp_path, lr_D=1e-4))
    assert steps_of(tmp_path / "run") == [5, 10, 12] and log_of(tmp_path).count("ended  ") == 2
    assert not is_free(tmp_path / "run")


@pytest.mark.parametrize("name", ["mine.txt", "samples/holiday.png", "checkpoints/step_000000.pt"])
def test_a_folder_with_anything_else_in_it_is_refused(tmp_path, name):
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("")
    for extra in ([], ["log.txt"]):
        for path in extra:
            (tmp_path / "run" / path).write_text("")
        with pytest.raises(UserError, match="never overwrites another"):
            start(tmp_path)


def test_checkpoints_that_are_there_already_need_no_room_again(tmp_path, monkeypatch):
    train.train(start(tmp_path, total_steps=4, save_every=1, keep=2))
    there = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").iterdir())
    usage = type("usage", (), {"free": 10 * 2**20 + there // 2})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    check_disk(tmp_path / "run", 3 * there // 2)  # those two and one that is being written
    with pytest.raises(UserError, match=r"may need 10[01] MiB more"):
        check_disk(tmp_path / "elsewhere", 3 * there // 2)


def test_a_longer_resume_after_a_linear_decay_says_what_the_learning_rates_become(tmp_path, capsys):
    train.train(start(tmp_path, total_steps=4, lr_decay="linear", lr_G=4e-4, lr_D=1e-3))
    go_on(tmp_path, total_steps=8)
    said = "learning rates of G and D at this step: 0 and 0 -> 0.0002 and 0.0005, as they fall to 0 at the last step"
    assert f"changed     {said}\n" in capsys.readouterr().out
    go_on(tmp_path, total_steps=8)
    assert "learning rates" not in capsys.readouterr().out


def test_a_dry_run_has_the_warnings_and_the_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        prepare({"loss": "wasserstein", "d_norm": ("none",), "device": "cpu", "amp": "fp16"}, dry_run=True)
    said = capsys.readouterr().out
    assert "# warning: no effect on a CPU: --amp fp16" in said and "# warning: the wasserstein loss has" in said
    assert "# run_dir: runs/digits_dcgan_wasserstein_none_seed0\n" in said and yaml.safe_load(said)["amp"] == "fp16"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory: 'git'"), "No such file or directory: 'git'"),
        (
            subprocess.CalledProcessError(128, "git", stderr="fatal: dubious ownership\nadd it"),
            "fatal: dubious ownership",
        ),
    ],
)
def test_a_commit_that_git_does_not_tell_is_recorded_with_the_reason(tmp_path, monkeypatch, error, reason):
    def run(*args, **options):
        raise error

    monkeypatch.setattr(record.subprocess, "run", run)
    train.train(start(tmp_path, total_steps=1))
    (entry,) = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"]
    assert entry["commit"] is None and reason in entry["commit_unknown"]
