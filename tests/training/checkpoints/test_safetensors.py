"""The safetensors format: what its own package writes is read, and the other way round; damage is refused."""

import json

import pytest
import torch

from training.checkpoints import checkpoint, safetensors
from utils.errors import UserError

TENSORS = {
    "a number": torch.tensor(3),
    "b": torch.tensor([True, False]),
    "c": torch.arange(6, dtype=torch.float16).view(2, 3).t(),
    "d": torch.linspace(0, 1, 5),
    "e": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "f": torch.tensor([[1, 2**40]], dtype=torch.int64),
}


def assert_same(found):
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in TENSORS.items())


def test_what_is_written_is_read_again(tmp_path):
    safetensors.write(tmp_path / "x", TENSORS, {"what": "grüße"})
    found, metadata = safetensors.read(tmp_path / "x")
    assert_same(found)
    assert metadata == {"what": "grüße"} and safetensors.is_one(tmp_path / "x")


def test_the_formats_own_package_reads_and_writes_the_same(tmp_path):
    package = pytest.importorskip("safetensors")
    from safetensors.torch import load_file, save_file

    safetensors.write(tmp_path / "ours", TENSORS, {"what": "this"})
    assert_same(load_file(tmp_path / "ours"))
    with package.safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"what": "this"}
    save_file({name: value.contiguous() for name, value in TENSORS.items()}, tmp_path / "theirs", {"what": "that"})
    found, metadata = safetensors.read(tmp_path / "theirs")
    assert_same(found)
    assert metadata == {"what": "that"}


def file_of(path, header, numbers=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
DAMAGED = {
    "not JSON": b"{not JSON at all",
    "deep": b'{"a": ' + b"[" * 100_000,
    "no entry": {"a": 3},
    "no dtype": {"a": ENTRY | {"dtype": "F31"}},
    "more numbers than bytes": {"a": ENTRY | {"shape": [10**12]}},
    "a place outside": {"a": ENTRY | {"data_offsets": [0, 16], "shape": [4]}},
    "a negative place": {"a": ENTRY | {"data_offsets": [-8, 0]}},
    "overlapping": {"a": ENTRY, "b": ENTRY},
    "a gap": {"a": ENTRY | {"shape": [1], "data_offsets": [4, 8]}},
    "too little": {"a": ENTRY | {"shape": [1], "data_offsets": [0, 4]}},
    "a shape of texts": {"a": ENTRY | {"shape": ["2"]}},
    "metadata of numbers": {"__metadata__": {"a": 1}, "a": ENTRY},
    "nothing of this project": {"a": ENTRY},
    "other facts": {"__metadata__": {"sngan": "[]"}, "a": ENTRY},
    "another format": {"__metadata__": {"sngan": '{"format": "sngan-checkpoint-1"}'}, "a": ENTRY},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_or_foreign_file_is_refused_with_its_name(tmp_path, name):
    path = file_of(tmp_path / "G.safetensors", DAMAGED[name])
    with pytest.raises(UserError, match=r"G\.safetensors is not a checkpoint of this project"):
        checkpoint.load_trained(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    safetensors.write(tmp_path / "x", TENSORS, {})
    whole = (tmp_path / "x").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "x").write_bytes(whole[:end])
        with pytest.raises((ValueError, KeyError, TypeError)):
            safetensors.read(tmp_path / "x")
