"""--init_from: a new run begins with trained weights, and says what it took and what is new."""

import pytest
import torch
from helpers import go_on, save_image, start

import train
from training import checkpoint, load_generator
from training.export import export
from training.run_dir import checkpoint_path
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")
FLAGS = {"model": "mlp", "total_steps": 2, "save_every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The last checkpoints of a run without classes, and of one with ten."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.monitor.finish_pictures", lambda run: None)
        plain = train.train(start(folder, "plain", **FLAGS))
        return plain, train.train(start(folder, "classes", **FLAGS, conditional="projection"))


def begun(run_dir):
    """What a run's checkpoint of step 0 holds."""
    return checkpoint.load(checkpoint_path(run_dir, 0))


@pytest.mark.parametrize("given", ["checkpoint", "run"])
def test_G_D_and_EMA_are_taken_and_all_else_is_new(tmp_path, trained, capsys, given):
    path = trained[0] if given == "checkpoint" else trained[0].parent.parent
    train.train(start(tmp_path, **FLAGS, init_from=str(path), seed=5, batch_size=4))
    before, after = checkpoint.load(trained[0]), begun(tmp_path / "run")
    for name in ("G", "D", "ema"):
        assert all(torch.equal(value, before[name][key]) for key, value in after[name].items())
    assert after["step"] == 0 and after["opt_G"]["state"] == {}
    assert f"starts from G and D and EMA of {trained[0]}, at its step 2" in capsys.readouterr().out


def test_an_exported_generator_gives_G_and_its_average(tmp_path, trained, capsys):
    export(tmp_path / "G.pt", checkpoint.load_trained(trained[0]))
    train.train(start(tmp_path, **FLAGS, init_from=str(tmp_path / "G.pt")))
    weights, after = checkpoint.load(trained[0])["ema"], begun(tmp_path / "run")
    assert all(torch.equal(after[name][key], value) for name in ("G", "ema") for key, value in weights.items())
    assert "D is new: an exported file has none" in capsys.readouterr().out


def test_other_classes_get_tables_of_their_own(tmp_path, trained, capsys):
    for number, name in enumerate(("cat", "dog", "emu")):
        for i in range(4):
            save_image(tmp_path / "pets" / name / f"{i}.png", (80 * number, i, 0))
    data = {"dataset": "folder", "data_dir": str(tmp_path / "pets"), "image_size": 8, "channels": 1}
    path = train.train(start(tmp_path, **FLAGS, **data, conditional="projection", init_from=str(trained[1])))
    before, after = checkpoint.load(trained[1]), begun(tmp_path / "run")
    new = {key for key, value in after["G"].items() if value.shape != before["G"][key].shape}
    assert new and all(value.size(0) == 3 for key, value in after["G"].items() if key in new)
    assert all(torch.equal(value, before["G"][key]) for key, value in after["G"].items() if key not in new)
    assert "the tables of labels are new, since there are other classes: classes.embedding" in capsys.readouterr().out
    assert load_generator(path).num_classes == 3


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"model": "dcgan"}, "it has model mlp, and this run dcgan"),
        ({"image_size": 16}, "it has image_size 8, and this run 16"),
        ({"conditional": "concat"}, "it has conditional none, and this run concat"),
        ({"d_norm": ("none",)}, "its D does not fit"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_run_exists(tmp_path, trained, flags, words):
    with pytest.raises(UserError, match=words):
        train.train(start(tmp_path, **FLAGS | flags, init_from=str(trained[0])))
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_resumed_run_goes_on_and_does_not_begin_again(tmp_path, trained):
    train.train(start(tmp_path, "whole", **FLAGS | {"total_steps": 4}, init_from=str(trained[0])))
    train.train(start(tmp_path, **FLAGS, init_from=str(trained[0])))
    go_on(tmp_path, total_steps=4)
    last = [checkpoint.load(checkpoint_path(tmp_path / name, 4))["G"] for name in ("whole", "run")]
    assert all(torch.equal(value, last[1][key]) for key, value in last[0].items())
    with pytest.raises(UserError, match="cannot change in a run that is resumed"):
        go_on(tmp_path, total_steps=6, init_from=str(trained[1]))


def test_a_start_from_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        train.train(start(tmp_path, **FLAGS, init_from=str(tmp_path / "absent.pt")))
