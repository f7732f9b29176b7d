"""Pictures decoded by several processes: as by one, and what happens where a process or a disk fails."""

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from helpers import random_images
from PIL import Image

from datasets import workers
from datasets.decode import How
from datasets.workers import close_up, decode_all
from utils.errors import UserError

COLOUR = How(8, 3)


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


def decoded(folder, names, target, how=COLOUR, **settings):
    target.touch()
    found = decode_all(folder, names, how, target, **settings)
    return found, target.read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_several_processes_give_what_one_gives(many, tmp_path, channels):
    folder, names = many
    how = How(8, channels, (0, 0, 0), "none")
    alone = decoded(folder, names, tmp_path / "alone", how, processes=1)
    assert decoded(folder, names, tmp_path / "by two", how, processes=2) == alone
    found, pixels = alone
    assert found.num == 26 and len(pixels) == 26 * channels * 64
    assert found.bad == {names[i]: "it is no picture" for i in (3, 10, 17, 24)}
    assert found.sizes == {(9, 9): 26}


def test_an_archive_is_decoded_by_several_processes(many, tmp_path):
    folder, names = many
    for name in names:
        os.rename(folder / name, folder / name.replace(os.fsdecode(b"\xe9"), "é"))
    names = [name.replace(os.fsdecode(b"\xe9"), "é") for name in names]
    archive = Path(shutil.make_archive(str(tmp_path / "many"), "zip", folder))
    packed = decoded(archive, names, tmp_path / "packed", processes=2)
    assert packed == decoded(folder, names, tmp_path / "unpacked", processes=1)


def test_a_process_that_dies_is_said_and_the_others_end(many, tmp_path, monkeypatch):
    folder, names = many
    script = tmp_path / "dies.py"
    script.write_text("import os, sys\nsys.stdin.readline()\nos._exit(9)\n")
    monkeypatch.setattr(workers.decode, "__file__", str(script))
    with pytest.raises(UserError, match=r"ended \(exit code 9\) at .*00.*\.png or one of the 3 after it"):
        decoded(folder, names, tmp_path / "target", processes=2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_the_system_s_error(many, tmp_path):
    folder, names = many
    (tmp_path / "target").symlink_to("/dev/full")
    for processes in (1, 2):
        with pytest.raises(OSError) as raised:
            decode_all(folder, names, COLOUR, tmp_path / "target", processes)
        assert raised.value.errno == errno.ENOSPC


def test_what_is_left_is_moved_together(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"aabb....cc......dd")
    close_up(target, 2, [(0, 2), (4, 1), (8, 1)])
    assert target.read_bytes() == b"aabbccdd"


def test_few_pictures_start_no_process(many, tmp_path, monkeypatch):
    monkeypatch.setattr(workers.subprocess, "Popen", None)
    found, pixels = decoded(*many, tmp_path / "target")
    assert found.num == 26 and torch.frombuffer(bytearray(pixels), dtype=torch.uint8).numel() == 26 * 192
