"""The file of decoded images: whole or not at all, made once by several that start at once, and where it cannot be."""

import errno
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers import random_images

from datasets import cache
from datasets.cache import Made, cache_folder, kept_or_made
from settings.config import Config
from utils.errors import UserError

IMAGES = random_images(5, 3, 8, 8)
LABELS = [2, 0, 1, 0, -1]
SIZES = {"smallest": [8, 8]}


def config(tmp_path, **settings):
    return Config(**{"data_dir": str(tmp_path), "image_size": 8, **settings})


class Maker:
    """make() of a cache, and how often it was called."""

    def __init__(self, images=IMAGES, error=None):
        self.images, self.error, self.calls = images, error, 0

    def __call__(self, file):
        self.calls += 1
        file.write(self.images.numpy().tobytes()[: 100 if self.error else None])
        if self.error:
            raise self.error
        return Made(LABELS, ("a", "b", "c"), SIZES, {"bad.png": "why"}, ("a note",))


def get(tmp_path, make, facts=None, say=print, **settings):
    return kept_or_made(config(tmp_path, **settings), "images", facts or {"files": "1"}, make, say)


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / ".cache").iterdir() if not path.name.startswith(".lock"))


def test_what_was_made_is_kept_and_mapped(tmp_path):
    make = Maker()
    for _ in range(2):
        found = get(tmp_path, make)
        assert torch.equal(found.images, IMAGES) and found.images.dtype == torch.uint8
        assert (found.labels.tolist(), found.labels.dtype, found.classes) == (LABELS, torch.int64, ("a", "b", "c"))
        assert found.origin[1:] == (SIZES, {"bad.png": "why"}, ("a note",))
        assert found.sha256() == found._replace(origin=None).sha256()
    assert make.calls == 1
    assert files(tmp_path) == ["images_8px_3ch.images", "images_8px_3ch.json"]
    if os.path.exists("/proc/self/maps"):
        assert "images_8px_3ch.images" in Path("/proc/self/maps").read_text()


def test_another_key_replaces_what_was_there_while_it_may_still_be_used(tmp_path):
    old = get(tmp_path, Maker())
    others = random_images(5, 3, 8, 8, seed=1)
    new = get(tmp_path, Maker(others), {"files": "2"})
    assert torch.equal(old.images, IMAGES) and torch.equal(new.images, others)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", ["shorter", "no JSON", "no pixels", "other JSON", "a list"])
def test_what_is_not_whole_is_made_anew(tmp_path, damage):
    make = Maker()
    get(tmp_path, make)
    pixels, beside = tmp_path / ".cache" / "images_8px_3ch.images", tmp_path / ".cache" / "images_8px_3ch.json"
    if damage == "shorter":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "no pixels":
        pixels.unlink()
    else:
        beside.write_text({"no JSON": "{", "other JSON": json.dumps({"key": 1}), "a list": "[]"}[damage])
    assert torch.equal(get(tmp_path, make).images, IMAGES)
    assert make.calls == 2


@pytest.mark.parametrize("error", [RuntimeError("any"), KeyboardInterrupt()])
def test_nothing_half_is_left(tmp_path, error):
    with pytest.raises(type(error)):
        get(tmp_path, Maker(error=error))
    assert files(tmp_path) == []


def test_the_halves_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "images_64px_3ch.images.part").write_bytes(b"half")
    get(tmp_path, Maker())
    assert files(tmp_path) == ["images_8px_3ch.images", "images_8px_3ch.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "or use a smaller --image_size"),
        (errno.EROFS, "Read-only file system"),
        (errno.ENOENT, "No such file"),
    ],
)
def test_a_full_or_closed_disk_is_said_with_the_way_out(tmp_path, number, words):
    error = OSError(number, os.strerror(number))
    with pytest.raises(UserError, match=r"cannot be kept in .*\.cache: .*with --cache_dir") as raised:
        get(tmp_path, Maker(error=error))
    assert words in str(raised.value) and files(tmp_path) == []


def test_a_cache_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="with --cache_dir"):
        get(tmp_path, Maker(), cache_dir=str(tmp_path / "file"))


def test_a_cache_that_is_there_needs_no_writing(tmp_path, monkeypatch):
    get(tmp_path, Maker())
    monkeypatch.setattr(cache, "locked", None)
    assert torch.equal(get(tmp_path, Maker(error=OSError(errno.EROFS, "read-only"))).images, IMAGES)


def test_where_the_cache_lies(tmp_path):
    assert cache_folder(config(tmp_path)) == tmp_path / ".cache"
    assert cache_folder(config(tmp_path, cache_dir="elsewhere")).name == "elsewhere"
    (tmp_path / "own.zip").write_bytes(b"")
    assert cache_folder(Config(data_dir=str(tmp_path / "own.zip"))) == tmp_path / ".cache"


# ---- Several processes ---------------------------------------------------------------------------------------------


def test_of_two_that_start_at_once_one_decodes_and_the_other_says_that_it_waits(tmp_path):
    decoding, waiting, said = threading.Event(), threading.Event(), []
    first, second = Maker(), Maker()

    def slow(file):
        decoding.set()
        assert waiting.wait(60)
        return first(file)

    def hear(text):
        said.append(text)
        waiting.set()

    with ThreadPoolExecutor(2) as threads:  # a lock is that of an opened file, also within one process
        one = threads.submit(get, tmp_path, slow)
        assert decoding.wait(60)
        other = threads.submit(get, tmp_path, second, say=hear)
        assert one.result().sha256() == other.result().sha256()
    assert (first.calls, second.calls) == (1, 0)
    assert said == [f"another process is decoding images into {tmp_path}/.cache; waiting for it"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process to kill")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_process_that_is_killed_while_it_decodes_leaves_no_lock_and_nothing_that_is_used(tmp_path):
    def be_killed(file):
        file.write(bytes(100))
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        get(tmp_path, be_killed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert files(tmp_path) == ["images_8px_3ch.images.part"]
    make = Maker()
    assert torch.equal(get(tmp_path, make, say=pytest.fail).images, IMAGES)
    assert make.calls == 1 and not list(tmp_path.glob(".cache/*.part"))
