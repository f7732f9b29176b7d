"""Checkpoints: written whole or not at all, refused with a reason, thinned, and exported for inference."""

import os
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils import parametrize

from settings.config import Config, stored
from training.checkpoints import checkpoint, export
from utils import files
from utils.errors import UserError

TINY = {"image_size": 8, "channels": 1, "z_dim": 4, "base_channels": 4}


class RunsCode:
    """What a malicious pickle looks like: loading it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def content_of(config, G=None, ema=None):
    G = G or checkpoint.models_of(config)[0]
    content = dict.fromkeys(checkpoint.CHECKPOINT_KEYS)
    weights = ema.state_dict() if ema else None
    return content | {
        "format": checkpoint.FORMAT,
        "config": stored(config),
        "step": 7,
        "data": {},
        "G": G.state_dict(),
        "ema": weights,
    }


def moved_generator(config, seed=0):
    """A generator whose weights, batch norm statistics and singular vectors are not the initial ones."""
    torch.manual_seed(seed)
    G, _ = checkpoint.models_of(config)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for _ in range(3):
            G(torch.randn(16, config.z_dim))
    return G.eval()


# ---- Writing -------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_again(tmp_path):
    path = tmp_path / "a.pt"
    content = content_of(Config(model="mlp", **TINY))
    files.save(path, content)
    loaded = checkpoint.read(path)
    assert loaded.keys() == content.keys()
    assert all(torch.equal(loaded["G"][name], value) for name, value in content["G"].items())
    assert loaded["step"] == 7
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(28, "No space left on device"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure, raised):
    path = tmp_path / "a.pt"
    path.write_bytes(b"the old file")

    def save_half(content, file):
        file.write(b"half")
        raise failure

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(raised):
        files.save(path, {})
    assert path.read_bytes() == b"the old file"
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_full_disk_is_told_with_the_files_name(tmp_path):
    def write(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=f"cannot write {tmp_path}/a.txt: No space left on device"):
        files.write_atomically(tmp_path / "a.txt", write)


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []

    def write(temporary):
        temporary.write_text("new")
        seen.append(path.read_text())

    files.write_atomically(path, write)
    assert (seen, path.read_text()) == (["old"], "new")


def test_saving_into_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        files.save(tmp_path / "absent" / "x.pt", {})


# ---- Refusing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = tmp_path / "a.pt"
    files.save(path, content_of(Config(model="mlp", **TINY)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=str(path)):
        checkpoint.read(path)


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_text("seed: 3\n")
    with pytest.raises(UserError, match=f"{path} is not a checkpoint of this project"):
        checkpoint.read(path)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("save", [torch.save, plain_pickle])
def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path, save):
    path, proof = tmp_path / "a.pt", tmp_path / "the code ran"
    save(content_of(Config(model="mlp", **TINY)) | {"random": RunsCode(proof)}, path)
    with pytest.raises(UserError, match=f"{path} .* holds code or objects, which are never loaded"):
        checkpoint.read(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(RunsCode(proof)))
    assert proof.exists()  # so the payload is a real one


@pytest.mark.parametrize(
    "content",
    [{"weight": torch.zeros(3)}, torch.zeros(3), [1, 2], {"format": "another-1"}, {"format": checkpoint.FORMAT}],
    ids=["state dict", "tensor", "list", "another format", "keys missing"],
)
def test_a_torch_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match=f"{path} is not a checkpoint of this project"):
        checkpoint.read(path)


def test_a_tensor_that_stands_for_more_than_its_file_is_refused(tmp_path):
    content = content_of(Config(model="mlp", **TINY))
    files.save(tmp_path / "a.pt", content)
    assert checkpoint.read(tmp_path / "a.pt")["step"] == 7
    name = next(iter(content["G"]))
    files.save(tmp_path / "a.pt", content | {"G": content["G"] | {name: torch.zeros(1).expand(10**12)}})
    with pytest.raises(UserError, match="is damaged or of another kind"):
        checkpoint.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda net: net.state_dict(), r"'1.bias', named as by torch's spectral norm\."),
        (lambda net: nn.utils.parametrizations.orthogonal(net[1]).state_dict(), "named as by torch.s parametriz"),
        (lambda net: {"step": 3, "G": nn.DataParallel(net).state_dict()}, "'module.1.bias', named as by .* and Data"),
        (lambda net: {"net": {"b": net[1].weight}}, r"tensors such as 'b'\."),
        (lambda net: [net[1].weight], "a list without named tensors"),
    ],
)
def test_weights_of_another_program_are_told_by_their_names(tmp_path, made, told):
    path = tmp_path / "theirs.pt"
    torch.save(made(nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2)), nn.Linear(2, 2))), path)
    with pytest.raises(UserError, match=f"{path} is not a checkpoint of this project: it holds .*{told}.*--samples"):
        checkpoint.read(path)
    safetensors.torch.save_file({"module.w": torch.zeros(2)}, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match=r"'module.w', named as by DataParallel\. This project reads its own runs"):
        checkpoint.read(tmp_path / "theirs.safetensors", tuple(checkpoint.KEYS))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=f"there is no checkpoint {tmp_path}/absent.pt"):
        checkpoint.read(tmp_path / "absent.pt")


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("other", [{"base_channels": 8}, {"image_size": 16}, {"model": "resnet"}, {"g_sn": True}])
def test_weights_of_another_network_are_refused(tmp_path, other):
    path = tmp_path / "a.pt"
    config = Config(model="dcgan", **TINY)
    G, _ = checkpoint.models_of(config)
    files.save(path, content_of(Config(**{"model": "dcgan", **TINY, **other}), G=G))
    with pytest.raises(UserError, match=f"{path}: its generator does not fit its configuration"):
        checkpoint.load_generator(path)


@pytest.mark.parametrize("changed", [{"no_such_setting": 1}, {"z_dim": 0}, {"z_dim": "many"}, {"loss": "hing"}])
def test_a_configuration_that_cannot_be_used_is_refused_with_the_files_name(changed):
    content = content_of(Config(model="mlp", **TINY))
    content["config"] |= changed
    with pytest.raises(UserError, match=f"somewhere.pt: its configuration cannot be used: .*{next(iter(changed))}"):
        checkpoint.Checkpoint("somewhere.pt", content)


@pytest.mark.parametrize("config", [Config(), Config(d_norm=("weight", "layer"), betas=(0.0, 0.9), num_epochs=3)])
def test_a_checkpoint_gives_back_its_configuration(tmp_path, config):
    path = tmp_path / "a.pt"
    files.save(path, content_of(config))
    assert checkpoint.load(path).config == config


def test_a_size_that_the_model_cannot_make_is_a_user_error():
    with pytest.raises(UserError, match=r"resnet makes images of .* not 12"):
        checkpoint.models_of(Config(model="resnet", image_size=12))


# ---- Generators ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [True, False])
def test_a_checkpoint_gives_the_average_or_the_generator_itself(tmp_path, ema):
    config = Config(model="mlp", **TINY)
    G, average = moved_generator(config, 0), moved_generator(config, 1)
    path = tmp_path / "a.pt"
    files.save(path, content_of(config, G, average))
    z = torch.randn(4, config.z_dim, generator=torch.Generator().manual_seed(0))
    loaded = checkpoint.load_generator(path, ema)
    assert torch.equal(loaded(z), (average if ema else G)(z))
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_checkpoint_without_an_average_gives_the_generator_and_says_so(tmp_path):
    config = Config(model="mlp", **TINY)
    G = moved_generator(config)
    loaded = checkpoint.Checkpoint("a.pt", content_of(config, G)).generator(ema=True)
    z = torch.randn(4, config.z_dim, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.G(z), G(z))
    assert (loaded.config, loaded.ema) == (config, False)


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp"])
@pytest.mark.parametrize("g_sn", [True, False])
def test_an_exported_generator_draws_the_same_images_without_spectral_norm(tmp_path, model, g_sn):
    config = Config(model=model, g_sn=g_sn, **TINY)
    G = moved_generator(config)
    z = torch.randn(16, config.z_dim, generator=torch.Generator().manual_seed(1))
    expected = G(z).detach()
    assert expected.std() > 0.01
    path = tmp_path / "generator.pt"
    export.export(path, checkpoint.Loaded(None, G, config, 7, True))
    assert torch.equal(G(z), expected)  # it is not changed itself
    loaded = checkpoint.load_generator(path)
    assert (loaded(z) - expected).abs().max() <= 1e-6
    assert not any(parametrize.is_parametrized(module) for module in loaded.modules())
    content = torch.load(path, weights_only=True)
    assert not any("parametrizations" in name for name in content["G"])
    assert (content["step"], content["ema"], content["config"]["g_sn"]) == (7, True, False)


def test_an_exported_generator_is_no_checkpoint_to_resume_from(tmp_path):
    config = Config(model="mlp", **TINY)
    path = tmp_path / "generator.pt"
    export.export(path, checkpoint.Loaded(None, moved_generator(config), config, 7, True))
    with pytest.raises(UserError, match=f"{path} is not a checkpoint of this project that can be used here"):
        checkpoint.read(path)
