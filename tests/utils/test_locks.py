"""Locks between processes: one holds it, the others are told who, and nobody waits for a process that is gone."""

import errno
import os
import signal
import socket

import filelock
import pytest

from utils.errors import UserError
from utils.locks import holder, locked


def refuse(who):
    raise UserError(f"taken by {who}")


def test_who_holds_a_lock_is_told_while_it_does(tmp_path):
    with locked(tmp_path / "lock"):
        assert holder(tmp_path / "lock").startswith(f"process {os.getpid()} on {socket.gethostname()}, since 20")
        with pytest.raises(UserError, match=f"taken by process {os.getpid()} on"), locked(tmp_path / "lock", refuse):
            pass
    assert holder(tmp_path / "lock") == ""
    with locked(tmp_path / "lock", refuse):
        pass


def test_an_error_within_frees_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock"):
        raise KeyboardInterrupt
    with locked(tmp_path / "lock", refuse):
        pass


def test_a_killed_process_frees_it(tmp_path, forks):
    body = "import os, sys; from utils.locks import locked; a = locked(sys.argv[1]); a.__enter__(); "
    body += "os.kill(os.getpid(), 9)"
    assert forks.run(body, tmp_path / "lock").returncode == -signal.SIGKILL
    assert holder(tmp_path / "lock")  # of who was killed
    with locked(tmp_path / "lock", refuse):
        assert holder(tmp_path / "lock").startswith(f"process {os.getpid()} on")


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "absent" / "lock"):
        pass
    assert not (tmp_path / "absent").exists()


def test_a_file_system_without_locks_holds_nobody_up(tmp_path, monkeypatch):
    def acquire(self, **options):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with locked(tmp_path / "lock", refuse):
        assert holder(tmp_path / "lock")


def test_a_lock_that_must_not_be_written_is_an_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(OSError, match="lock"), locked(tmp_path / "lock"):
        pass
