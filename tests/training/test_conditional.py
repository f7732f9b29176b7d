"""Conditional runs: what becomes of the classes in the data, the grids, the checkpoints and the scores."""

import json
import shutil

import pytest
import torch
import yaml
from helpers import go_on, rewrite, save_image, start
from PIL import Image

import evaluate
import train
from datasets import Classes
from training import load_generator, monitor
from training.checkpoints import checkpoint
from training.checkpoints.export import export
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")
TWO_STEPS = {"total_steps": 2, "save_every": 2, "model": "mlp", "conditional": "projection"}


def pets(tmp_path):
    """A folder of three classes of pictures."""
    for number, name in enumerate(("cat", "dog", "emu")):
        for i in range(4):
            save_image(tmp_path / "pets" / name / f"{i}.png", (80 * number, i, 0))
    return {"dataset": "folder", "data_dir": str(tmp_path / "pets"), "image_size": 8}


@pytest.mark.parametrize("model", ["dcgan", "resnet", "mlp", "r3gan"])
@pytest.mark.parametrize("conditional", ["projection", "acgan", "concat"])
def test_a_run_on_classes_trains_and_its_generator_takes_labels(tmp_path, conditional, model):
    path = train.train(start(tmp_path, **TWO_STEPS | {"conditional": conditional, "model": model}))
    G = load_generator(path)
    assert G.num_classes == 10
    z = torch.randn(3, G.z_dim)
    assert G(z, torch.tensor([1, 1, 7])).shape == (3, 1, 8, 8)
    assert not torch.equal(G(z, torch.tensor([1, 1, 7])), G(z, torch.tensor([2, 2, 3])))


def test_a_checkpoint_knows_its_classes_and_how_often_each_came(tmp_path):
    path = train.train(start(tmp_path, **TWO_STEPS, **pets(tmp_path)))
    assert checkpoint.load_trained(path).classes == Classes(("cat", "dog", "emu"), (4, 4, 4))
    exported = tmp_path / "G.pt"
    export(exported, checkpoint.load_trained(path))
    assert checkpoint.load_trained(exported).classes == Classes(("cat", "dog", "emu"), (4, 4, 4))
    plain = train.train(start(tmp_path, "plain", total_steps=1))
    assert checkpoint.load_trained(plain).classes is None and "classes" not in checkpoint.read(plain)


def test_a_run_is_not_resumed_on_other_classes(tmp_path):
    data = pets(tmp_path)
    train.train(start(tmp_path, **TWO_STEPS, **data))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    shutil.move(tmp_path / "pets" / "emu", tmp_path / "pets" / "fox")
    with pytest.raises(UserError, match=r"trained on other classes than there are now \(gone: emu; new: fox\)"):
        go_on(tmp_path, total_steps=4)
    (tmp_path / "pets" / "fox").rename(tmp_path / "pets" / "emu")
    save_image(tmp_path / "pets" / "emu" / "more.png", "red")
    with pytest.raises(UserError, match="their numbers of images"):
        go_on(tmp_path, total_steps=4)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["a"], "counts": [1]},
        {"names": ["a", "a"], "counts": [1, 1]},
        {"names": ["a", "b"], "counts": [1]},
        {"names": ["a", "b"], "counts": [1, 0]},
        {"names": ["a", "b"], "counts": [1, 10**30]},
        {"names": [1, 2], "counts": [1, 1]},
        {"names": list(map(str, range(11))), "counts": [1] * 11},
        {"names": list(map(str, range(10**5))), "counts": [1] * 10**5},
        None,
    ],
)
def test_a_checkpoint_with_a_damaged_table_of_classes_is_refused(tmp_path, classes):
    path = train.train(start(tmp_path, **TWO_STEPS))
    rewrite(path, lambda content: content.update(classes=classes))
    with pytest.raises(UserError, match=r"its (table of classes|generator) does not fit its configuration"):
        load_generator(path)


def test_a_table_of_labels_of_another_size_is_refused(tmp_path):
    path = train.train(start(tmp_path, **TWO_STEPS))

    def cut(content):
        name = next(name for name, value in content["ema"].items() if value.dim() == 2 and len(value) == 10)
        content["ema"][name] = content["ema"][name][:9]

    rewrite(path, cut)
    with pytest.raises(UserError, match="does not fit"):
        load_generator(path)


def test_a_grid_has_a_row_a_class_with_its_name_and_a_column_a_latent(tmp_path):
    train.train(start(tmp_path, **TWO_STEPS, **pets(tmp_path)))
    picture = Image.open(tmp_path / "run" / "samples" / "step_000000.png")
    assert picture.size == (11 * 66 + 2, 3 * 66 + 2)
    z = torch.randn(100, 4)
    z, labels, names = monitor.preview(z, Classes(("cat", "dog", "emu"), (1, 1, 1)))
    assert torch.equal(z[:10], z[10:20]) and torch.equal(z[:10], z[20:])
    assert labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10 and names == ("cat", "dog", "emu")


def test_scores_say_what_was_asked_for_and_what_came(tmp_path, data_dir):
    path = train.train(start(tmp_path, **TWO_STEPS, data_dir=data_dir))
    evaluator = evaluate.make_evaluator(checkpoint.load_trained(path).config, torch.device("cpu"))
    evaluate.score([path], evaluator)
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert 0 <= found["class_accuracy"]["mean"] <= 1
    assert found["intra_fid"]["mean"] is None and "dimensions" in found["intra_fid"]["reason"]
    protocol = found["protocol"]
    assert (protocol["conditional"], protocol["num_classes"]) == ("projection", 10)


def test_a_class_that_lost_all_its_images_has_no_row_and_is_counted(tmp_path, capsys):
    data = pets(tmp_path)
    for path in (tmp_path / "pets" / "dog").iterdir():
        path.write_bytes(b"")
    train.train(start(tmp_path, **TWO_STEPS | {"conditional": "none"}, **data, bad_images="skip"))
    assert Image.open(tmp_path / "run" / "samples" / "real.png").size == (11 * 66 + 2, 2 * 66 + 2)
    assert "classes     3: cat 4, dog 0, emu 4; the rarest is dog with 0" in capsys.readouterr().out
    record = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["record"][0]
    assert record["skipped_images"]["dog/0.png"] == "it is not a picture"
    with pytest.raises(UserError, match="each class needs at least 2 images, but dog has no images"):
        train.train(start(tmp_path, "conditional", **TWO_STEPS, **data, bad_images="skip"))


def test_real_images_are_shown_a_row_a_class_and_counted(tmp_path, capsys):
    data = pets(tmp_path)
    save_image(tmp_path / "pets" / "dog" / "more.png", "red")
    train.train(start(tmp_path, **TWO_STEPS, **data))
    assert Image.open(tmp_path / "run" / "samples" / "real.png").size == (11 * 66 + 2, 3 * 66 + 2)
    assert "classes     3: cat 4, dog 5, emu 4; the rarest is cat with 4" in capsys.readouterr().out
