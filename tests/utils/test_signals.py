"""Signals to a run: to stop, and to save."""

import signal

import pytest
from helpers import assert_same_end, at_step, go_on, start, steps_of

import train
from evaluation.inputs import features
from training import monitor
from training.checkpoints import checkpoint
from training.checkpoints.run_dir import latest
from utils.errors import Stopped

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_the_resumed_run_is_the_same(tmp_path, whole, monkeypatch, number):
    at_step(monkeypatch, 7, lambda: signal.raise_signal(number))
    with pytest.raises(Stopped, match=r"stopped after step 7 .*--resume") as stopped:
        train.train(start(tmp_path))
    assert stopped.value.exit_code == 128 + number
    assert latest(tmp_path / "run").name == "step_000007.pt"
    go_on(tmp_path)
    assert_same_end(whole, tmp_path / "run")


def test_a_signal_while_scoring_loses_no_step(tmp_path, data_dir, monkeypatch):
    plain, calls = monitor.score, []

    def signalled(*args):
        if not calls:
            signal.raise_signal(signal.SIGTERM)
        calls.append(None)
        return plain(*args)

    monkeypatch.setattr(monitor, "score", signalled)
    with pytest.raises(Stopped, match=r"stopped after step 8 and saved .*step_000008.pt"):
        train.train(start(tmp_path, eval_every=7, data_dir=data_dir))
    assert latest(tmp_path / "run").name == "step_000008.pt"


def test_a_signal_while_the_classifier_is_trained_stops_the_run_saved_and_it_goes_on(tmp_path, monkeypatch):
    plain, trained = features.train_classifier, []

    def train_classifier(images, device, epochs):
        trained.append(epochs)
        if len(trained) == 1:
            signal.raise_signal(signal.SIGINT)
        return plain(images, device, 1)

    monkeypatch.setattr(features, "train_classifier", train_classifier)
    with pytest.raises(Stopped, match=r"stopped after step 8 and saved .*step_000008.pt") as stopped:
        train.train(start(tmp_path, eval_every=7, data_dir=str(tmp_path)))
    assert stopped.value.exit_code == 128 + signal.SIGINT
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "SIGINT: the classifier of digits is not saved" in log and "IS " not in log
    assert go_on(tmp_path, eval_every=12).name == "step_000012.pt"
    assert len(trained) == 2 and "step 12: IS " in (tmp_path / "run" / "log.txt").read_text()


def test_sigusr1_saves_and_the_run_goes_on(tmp_path, whole, monkeypatch):
    at_step(monkeypatch, 7, lambda: signal.raise_signal(signal.SIGUSR1))
    train.train(start(tmp_path, keep=10))
    assert steps_of(tmp_path / "run") == [0, 5, 7, 10, 12]
    assert "SIGUSR1     saved" in (tmp_path / "run" / "log.txt").read_text()
    assert_same_end(whole, tmp_path / "run")


def test_a_terminal_that_is_closed_stops_the_run_saved_and_nohup_keeps_it_going(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup themselves
    try:
        with monkeypatch.context() as patched:
            at_step(patched, 7, lambda: signal.raise_signal(signal.SIGHUP))
            with pytest.raises(Stopped, match="SIGHUP: stopped after step 7 and saved"):
                train.train(start(tmp_path))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGHUP))
        assert checkpoint.read(go_on(tmp_path))["step"] == 12
    finally:
        signal.signal(signal.SIGHUP, before)
