"""--init_from: a new run begins with trained weights, and says what it took and what is new."""

import pytest
import torch
from helpers import go_on, save_image, start

import train
from training import load_generator
from training.checkpoints import checkpoint
from training.checkpoints.export import export
from training.checkpoints.fine_tune import tables
from training.checkpoints.run_dir import checkpoint_path
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")
FLAGS = {"model": "mlp", "total_steps": 2, "save_every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The last checkpoints of a run without classes, and of one with ten."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.reporting.showing.Show.end", lambda *args: None)
        plain = train.train(start(folder, "plain", **FLAGS))
        return plain, train.train(start(folder, "classes", **FLAGS, conditional="projection"))


def begun(run_dir):
    """What a run's checkpoint of step 0 holds."""
    return checkpoint.read(checkpoint_path(run_dir, 0))


@pytest.mark.parametrize("given", ["checkpoint", "run"])
def test_G_D_and_EMA_are_taken_and_all_else_is_new(tmp_path, trained, capsys, given):
    path = trained[0] if given == "checkpoint" else trained[0].parent.parent
    train.train(start(tmp_path, **FLAGS, init_from=str(path), seed=5, batch_size=4))
    before, after = checkpoint.read(trained[0]), begun(tmp_path / "run")
    for name in ("G", "D", "ema"):
        assert all(torch.equal(value, before[name][key]) for key, value in after[name].items())
    assert after["step"] == 0 and after["opt_G"]["state"] == {}
    assert f"start       from G, D and EMA of {trained[0]}, at its step 2" in capsys.readouterr().out


def test_an_exported_generator_gives_G_and_its_average(tmp_path, trained, capsys):
    export(tmp_path / "G.pt", checkpoint.load_trained(trained[0]))
    train.train(start(tmp_path, **FLAGS, init_from=str(tmp_path / "G.pt")))
    weights, after = checkpoint.read(trained[0])["ema"], begun(tmp_path / "run")
    assert all(torch.equal(after[name][key], value) for name in ("G", "ema") for key, value in weights.items())
    assert "start       D is new: an exported file does not contain one" in capsys.readouterr().out


def pets(tmp_path, *names):
    """A folder of these classes."""
    for number, name in enumerate(names):
        for i in range(4):
            save_image(tmp_path / "pets" / name / f"{i}.png", (80 * number, i, 0))
    return {"dataset": "folder", "data_dir": str(tmp_path / "pets"), "image_size": 8, "channels": 1}


def test_other_classes_get_tables_of_their_own(tmp_path, trained, capsys):
    data = pets(tmp_path, "cat", "dog", "emu")
    path = train.train(start(tmp_path, **FLAGS, **data, conditional="projection", init_from=str(trained[1])))
    before, after = checkpoint.read(trained[1]), begun(tmp_path / "run")
    new = {key for key, value in after["G"].items() if value.shape != before["G"][key].shape}
    assert new and all(value.size(0) == 3 for key, value in after["G"].items() if key in new)
    assert all(torch.equal(value, before["G"][key]) for key, value in after["G"].items() if key not in new)
    assert "start       the tables of labels are new: 10 classes before, 3 now (gone: " in capsys.readouterr().out
    assert load_generator(path).num_classes == 3


@pytest.mark.parametrize("conditional", ["projection", "acgan"])
def test_as_many_classes_of_other_names_get_new_tables_too_and_the_same_ones_keep_theirs(tmp_path, conditional):
    flags = FLAGS | {"conditional": conditional, "seed": 3}
    first = train.train(start(tmp_path, "first", **flags, **pets(tmp_path, "cat", "dog")))
    again = flags | {"seed": 4, "init_from": str(first), "total_steps": 1}
    train.train(start(tmp_path, "same", **again, **pets(tmp_path)))
    (tmp_path / "pets" / "dog").rename(tmp_path / "pets" / "fox")
    train.train(start(tmp_path, "other", **again, **pets(tmp_path)))
    before, same, other = checkpoint.read(first), begun(tmp_path / "same"), begun(tmp_path / "other")
    _, D = checkpoint.models_of(checkpoint.load_trained(first).config, checkpoint.load_trained(first).classes)
    names = {name for name in tables(D) if name.endswith("original")}  # of D; G's begin at 1 and 0
    assert names and all(torch.equal(same["D"][name], before["D"][name]) for name in names)
    assert not any(torch.equal(other["D"][name], before["D"][name]) for name in names)
    assert all(torch.equal(other["G"][name], value) for name, value in before["G"].items() if "statistics" in name)
    gains = [value for name, value in other["G"].items() if value.dim() == 2 and len(value) == 2]
    assert gains and all((value == 1).all() or (value == 0).all() for value in gains)


def test_classes_that_are_inputs_of_the_networks_have_to_be_the_same(tmp_path):
    flags = FLAGS | {"conditional": "concat"}
    first = train.train(start(tmp_path, "first", **flags, **pets(tmp_path, "cat", "dog")))
    with pytest.raises(UserError, match=r"other classes \(new: emu\), but under --conditional concat classes are"):
        train.train(start(tmp_path, **flags, **pets(tmp_path, "emu"), init_from=str(first)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"model": "dcgan"}, "it has model mlp, but this run dcgan"),
        ({"image_size": 16}, "it has image_size 8, but this run 16"),
        ({"conditional": "concat"}, "it has conditional none, but this run concat"),
        (
            {"d_norm": ("none",)},
            "it has d_norm spectral, but this run none. Add to this run: --d_norm spectral$",
        ),
        ({"g_sn": True}, "run: --no_g_sn$"),
        ({"base_channels": 8, "z_dim": 4}, "run: --z_dim 8, --base_channels 4$"),
    ],
)
def test_what_does_not_fit_is_refused_before_data_are_read_or_a_folder_made(tmp_path, trained, flags, words):
    with pytest.raises(UserError, match=words):
        start(tmp_path, **FLAGS | flags, init_from=str(trained[0]))
    assert not (tmp_path / "run").exists()


def test_a_setting_that_it_does_not_have_is_to_be_left_out(tmp_path):
    path = train.train(start(tmp_path, "first", total_steps=1, save_every=1))
    with pytest.raises(UserError, match=r"it has attention None, but this run 4\. .*: no --attention$"):
        start(tmp_path, attention=4, init_from=str(path))


def test_an_export_fits_a_run_with_another_norm_of_D(tmp_path, trained):
    export(tmp_path / "G.pt", checkpoint.load_trained(trained[0]))
    train.train(start(tmp_path, **FLAGS, d_norm=("none",), init_from=str(tmp_path / "G.pt")))


def test_a_resumed_run_goes_on_and_does_not_begin_again(tmp_path, trained):
    train.train(start(tmp_path, "whole", **FLAGS | {"total_steps": 4}, init_from=str(trained[0])))
    train.train(start(tmp_path, **FLAGS, init_from=str(trained[0])))
    go_on(tmp_path, total_steps=4)
    last = [checkpoint.read(checkpoint_path(tmp_path / name, 4))["G"] for name in ("whole", "run")]
    assert all(torch.equal(value, last[1][key]) for key, value in last[0].items())
    with pytest.raises(UserError, match="cannot change in a run that is resumed"):
        go_on(tmp_path, total_steps=6, init_from=str(trained[1]))


def test_a_start_from_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        start(tmp_path, **FLAGS, init_from=str(tmp_path / "absent.pt"))
    (tmp_path / "G.onnx").write_bytes(b"a graph")
    with pytest.raises(UserError, match="is a graph for onnxruntime"):
        start(tmp_path, **FLAGS, init_from=str(tmp_path / "G.onnx"))
