"""Files from strangers: whatever is in them, an error of the project's own kind or success, and no file elsewhere.

FUZZ_EXAMPLES=10000 makes the long form (the default is 100 inputs each).
"""

import contextlib
import io
import json
import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import train
from datasets.sources import load_split
from settings.config import FIELDS, Config
from settings.layers import read_yaml, resolve
from training import prepare
from training.checkpoints import checkpoint
from training.reporting.logger import Logger, read_stats
from training.state import State
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and torch, about a broken file
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 100))
PATIENCE = 30  # seconds, after which an input hangs
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a first failure is shown as it is: to shrink one takes minutes
)
watched = []  # what was written or started since a test began to watch


def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        watched.append(("wrote", str(arguments[0])))
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        watched.append((event, str(arguments)))


sys.addaudithook(hook)


@contextlib.contextmanager
def patience():
    """Fail what takes too long."""

    def hangs(*args):
        raise TimeoutError(f"no answer within {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def harmless(folder):
    """Pass a UserError; fail for any other error, a hang, a program that is started, a file outside the folder."""
    watched.clear()
    with patience(), contextlib.suppress(UserError):
        yield
    elsewhere = [what for what in watched if what[0] != "wrote" or not what[1].startswith((str(folder), "/dev/null"))]
    assert not elsewhere


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def damaged(whole):
    """Bytes like these: cut, overwritten, inserted into, or altogether others."""
    places = st.integers(0, len(whole) - 1)
    changes = st.lists(st.tuples(places, st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)

    def overwrite(changes):
        found = bytearray(whole)
        for place, new in changes:
            found[place : place + len(new)] = new
        return bytes(found)

    def insert(changes):
        found = whole
        for place, new in changes:
            found = found[:place] + new + found[place:]
        return found

    return st.one_of(
        changes.map(overwrite), changes.map(insert), places.map(lambda end: whole[:end]), st.binary(max_size=200)
    )


# ---- Checkpoints ---------------------------------------------------------------------------------------------------

FLAGS = SMALL | {"model": "mlp", "conditional": "projection", "base_channels": 2, "z_dim": 4, "g_sn": True}
FLAGS |= {"total_steps": 2, "save_every": 2}


@pytest.fixture(scope="module")
def trained(folder):
    """The bytes and the content of a real checkpoint, and its data. Returns them hidden from hypothesis's messages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.reporting.showing.Show.end", lambda *args: None)
        path = train.train(prepare({**FLAGS, "run_dir": str(folder / "trained")}))
    found = path.read_bytes(), checkpoint.read(path), load_split(resolve(FLAGS)[0])
    return lambda: found


def use(path, images, train_on):
    """Everything that is done with a checkpoint: sampled from, resumed from, trained on where that is affordable."""
    saved = checkpoint.load(path)
    G, config = saved.generator().G, saved.config
    G(torch.zeros(2, config.z_dim), *[torch.zeros(2, dtype=torch.int64)] * (config.conditional != "none"))
    state = State(config, images, torch.device("cpu"))
    state.load(saved)
    if train_on:
        state.G.train()
        state.D.train()
        train.step(state, config)


@fuzz
@given(choice=st.data())
def test_damaged_checkpoints(folder, trained, choice):
    whole, _, images = trained()
    path = folder / "damaged.pt"
    path.write_bytes(choice.draw(damaged(whole)))
    with harmless(folder):
        use(path, images, train_on=False)


TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    st.lists(st.integers(0, 5), max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool, torch.complex64]),
)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([2**62, -1, 10**400])
)
VALUES = st.one_of(PLAIN, TENSORS, st.lists(PLAIN, max_size=4), st.dictionaries(st.text(max_size=8), PLAIN, max_size=3))


def places(content, where=()):
    """Every path of keys into nested dicts and lists."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*where, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*where, key))


def changed(content, path, value, remove):
    """A copy with another value at a path, or nothing there."""
    key, *rest = path
    copy = dict(content) if isinstance(content, dict) else list(content)
    if rest:
        copy[key] = changed(content[key], rest, value, remove)
    elif remove:
        del copy[key]
    else:
        copy[key] = value
    return copy


@fuzz
@given(choice=st.data())
def test_checkpoints_with_something_else_in_them(folder, trained, choice):
    _, content, images = trained()
    where = choice.draw(st.sampled_from(list(places(content))))
    path = folder / "changed.pt"
    torch.save(changed(content, where, choice.draw(VALUES), choice.draw(st.booleans())), path)
    with harmless(folder):
        use(path, images, train_on=where[0] != "config")


# ---- Settings ------------------------------------------------------------------------------------------------------

KEYS = st.one_of(st.sampled_from(list(FIELDS)), st.text(max_size=8))
SETTINGS = st.dictionaries(KEYS, st.one_of(PLAIN, st.lists(PLAIN, max_size=3)), max_size=5)
MARKS = [": ", "\n", "  ", "- ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "!!python/object:os.system ", "!!binary "]
MARKS += ["'", '"', "#", "%", "@", "---", "...", "? ", ", ", "\t", "1e3", "2001-99-01", "0x", "~", ".inf", "|"]
TOKENS = st.lists(st.sampled_from([*FIELDS, *MARKS]), max_size=30).map("".join)
YAML_FILES = st.one_of(
    SETTINGS.map(lambda settings: yaml.safe_dump(settings, allow_unicode=True).encode("utf-8", "replace")),
    TOKENS.map(str.encode),
    st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")),
    damaged(b"dataset: digits\nmodel: dcgan\nd_norm: [spectral, batch]\nbetas: [0.0, 0.9]\nlr_G: 2.0e-4\nseed: 1\n"),
)


@fuzz
@given(text=YAML_FILES)
def test_settings(folder, text):
    path = folder / "settings.yaml"
    path.write_bytes(text)
    with harmless(folder):
        read_yaml(path)
        resolve({"config": str(path)})


def test_a_few_lines_of_aliases_do_not_become_gigabytes(folder):
    path = folder / "aliases.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join([*lines, "seed: *a11"]))
    with pytest.raises(UserError, match="alias"):
        read_yaml(path)


# ---- Images --------------------------------------------------------------------------------------------------------


def pictures():
    """A small valid file of each format that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    for suffix, form in {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "ppm": "PPM"}.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, form)
        yield suffix, buffer.getvalue()


PICTURES = dict(pictures())
OWN = Config(dataset="folder", image_size=8)


@fuzz
@given(choice=st.data())
def test_image_folders(folder, choice):
    suffix = choice.draw(st.sampled_from(list(PICTURES)))
    path = folder / "images" / "class" / f"picture.{choice.draw(st.sampled_from([suffix, 'png']))}"
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.iterdir():
        other.unlink()
    path.write_bytes(choice.draw(damaged(PICTURES[suffix])))
    with harmless(folder):
        own = {"data_dir": str(folder / "images"), "channels": choice.draw(st.sampled_from([1, 3]))}
        images = load_split(replace(OWN, **own))
        assert images.images.dtype == torch.uint8 and len(images.images) == 1


def test_a_picture_that_claims_a_billion_pixels_is_refused_before_it_is_decoded(folder):
    whole = bytearray(PICTURES["bmp"])
    whole[18:26] = (30_000).to_bytes(4, "little") * 2  # width and height
    (folder / "bomb").mkdir()
    (folder / "bomb" / "a.bmp").write_bytes(whole)
    with pytest.raises(UserError, match=r"(?s)cannot read 1 of the 1 images.*a.bmp: 30000x30000 pixels are too many"):
        load_split(replace(OWN, data_dir=str(folder / "bomb")))


def test_what_is_no_file_is_no_image(folder):
    (folder / "odd").mkdir()
    os.mkfifo(folder / "odd" / "pipe.png")  # to open it would wait for ever
    (folder / "odd" / "gone.png").symlink_to(folder / "absent.png")
    (folder / "odd" / "again").symlink_to(folder / "odd")
    with pytest.raises(UserError, match="no images below"), patience():
        load_split(replace(OWN, data_dir=str(folder / "odd")))
    with pytest.raises(UserError, match="is not a file"), patience():
        checkpoint.read(folder / "odd" / "pipe.png")


# ---- Statistics ----------------------------------------------------------------------------------------------------

LINES = b"".join(json.dumps({"step": 10 * i, "loss_D": 1 / 3, "fid": None}).encode() + b"\n" for i in range(1, 6))
JSON_LINES = st.lists(st.one_of(VALUES.filter(lambda value: not isinstance(value, torch.Tensor)), SETTINGS), max_size=5)


def as_lines(values):
    return "\n".join(json.dumps(value, default=str) for value in [*values, {"step": 1}]).encode() + b"\n"


@fuzz
@given(content=st.one_of(damaged(LINES), st.binary(max_size=60), JSON_LINES.map(as_lines)))
def test_statistics(folder, content):
    where = folder / "stats"
    where.mkdir(exist_ok=True)
    (where / "stats.jsonl").write_bytes(content)
    with harmless(folder):
        read = read_stats(where)
        logger = Logger(where, step=30)
        logger.write(40, {"loss_D": 0.5})
        logger.close()
        assert read_stats(where) == [line for line in read if line["step"] <= 30] + [
            {"step": 40, "loss_D": 0.5}
        ] or any(value != value for line in read for value in line.values())
