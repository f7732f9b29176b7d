"""Pictures decoded by several processes: as by one, and what happens where a process or a disk fails."""

import errno
import io
import multiprocessing
import os
import select
import shutil
import signal
from pathlib import Path

import pytest
import torch
from helpers import random_images
from PIL import Image

from datasets import workers
from datasets.decode import Facts, How
from datasets.workers import decode_all
from utils.errors import UserError

COLOUR = How(8, 3)
forked = pytest.mark.skipif(workers.START != "fork", reason="what is patched here has to be so in the others too")


@pytest.fixture
def many(tmp_path, monkeypatch):
    """Thirty pictures, every seventh of them bad, in parts of four: the folder and the names."""
    monkeypatch.setattr(workers, "PART", 4)
    folder = tmp_path / "many pictures"
    folder.mkdir()
    names = [f"{i:02}{os.fsdecode(bytes([0xE9]))}.png" for i in range(30)]
    for i, name in enumerate(names):
        Image.fromarray(random_images(9, 9, 3, seed=i).numpy()).save(folder / name)
        if i % 7 == 3:
            (folder / name).write_bytes(b"")
    return folder, names


def decoded(folder, names, how=COLOUR, **settings):
    out = io.BytesIO()
    return decode_all(folder, names, how, out, **settings), out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_several_processes_give_what_one_gives(many, channels):
    how = How(8, channels, (0, 0, 0), "none")
    before = torch.get_rng_state()
    found, pixels = alone = decoded(*many, how, num_workers=0)
    assert decoded(*many, how, num_workers=2) == alone
    assert len(pixels) == 26 * channels * 64
    assert found.bad == {many[1][i]: "it is not a picture" for i in (3, 10, 17, 24)}
    assert found.seen == {Facts((9, 9)): 26} and found.count == 26
    assert torch.equal(torch.get_rng_state(), before)  # which a DataLoader would change


def test_an_archive_is_decoded_by_several_processes(many, tmp_path):
    folder, names = many
    for name in names:
        os.rename(folder / name, folder / name.replace(os.fsdecode(b"\xe9"), "é"))
    names = [name.replace(os.fsdecode(b"\xe9"), "é") for name in names]
    archive = Path(shutil.make_archive(str(tmp_path / "many"), "zip", folder))
    assert decoded(archive, names, num_workers=2) == decoded(folder, names, num_workers=0)


@forked
def test_a_process_that_dies_is_said_and_the_others_end(many, monkeypatch):
    def die(file, how):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(workers, "picture", die)
    with pytest.raises(UserError, match=r"died at .*00.*\.png or soon after it \(DataLoader worker .*\)"):
        decoded(*many, num_workers=2)
    assert not multiprocessing.active_children()


def test_ctrl_c_ends_all_processes(many):
    class Interrupted(io.BytesIO):
        def write(self, pixels):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        decode_all(*many, COLOUR, Interrupted(), num_workers=2)
    assert not multiprocessing.active_children()


@forked
@pytest.mark.filterwarnings("ignore:This process")
def test_processes_end_with_one_that_is_killed(many):
    class Killing(io.BytesIO):
        def write(self, pixels):
            os.kill(os.getpid(), signal.SIGKILL)

    reader, writer = os.pipe()  # which all processes hold open until they end
    if (child := os.fork()) == 0:
        decode_all(*many, How(256, 3), Killing(), num_workers=2)  # more than a pipe holds
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert select.select([reader], [], [], 60)[0] and os.read(reader, 1) == b""
    os.close(reader)


@forked
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_memory_that_runs_out_is_no_bad_picture(many, monkeypatch, num_workers, error):
    def run_out(file, how):
        raise error

    monkeypatch.setattr(workers, "picture", run_out)
    with pytest.raises(MemoryError):
        decoded(*many, num_workers=num_workers)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_the_system_s_error(many):
    with pytest.raises(OSError) as raised, open("/dev/full", "wb") as full:
        decode_all(*many, COLOUR, full)
    assert raised.value.errno == errno.ENOSPC


def test_few_pictures_start_no_process(many, monkeypatch):
    monkeypatch.setattr(os, "fork", None)
    assert decoded(*many)[0].count == 26
