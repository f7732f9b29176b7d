"""Generators as .safetensors, which may come from anyone: damaged and foreign ones are refused in one line."""

import json

import pytest
import torch
from helpers import build

from settings.config import Config
from training.checkpoints import checkpoint, export
from utils.errors import UserError


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
}
FOREIGN = {
    "nothing of this project": {"a": ENTRY},
    "other facts": {"__metadata__": {"sngan": "[]"}, "a": ENTRY},
    "another format": {"__metadata__": {"sngan": '{"format": "sngan-checkpoint-1"}'}, "a": ENTRY},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_with_its_name_and_the_reason(tmp_path, name):
    path = file_of(tmp_path / "G.safetensors", DAMAGED[name])
    words = r"G\.safetensors is not a checkpoint of this project: it is damaged or of another kind \(.+\)$"
    with pytest.raises(UserError, match=words) as refused:
        checkpoint.load_trained(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_with_its_name(tmp_path, name):
    path = file_of(tmp_path / "G.safetensors", FOREIGN[name])
    with pytest.raises(UserError, match=r"G\.safetensors is not a checkpoint of this project"):
        checkpoint.load_trained(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    G, _ = build("mlp", 8, channels=1)
    config = Config(model="mlp", image_size=8, channels=1, z_dim=5, base_channels=2)
    path = tmp_path / "G.safetensors"
    export.export(path, checkpoint.Loaded(None, G.eval(), config, 7, True))
    assert torch.equal(checkpoint.load_generator(path)(torch.ones(2, 5)), G(torch.ones(2, 5)))
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match="is not a checkpoint of this project"):
            checkpoint.load_trained(path)
