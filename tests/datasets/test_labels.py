"""Classes: labels that are drawn as often as they come, and the names that a person gives them."""

import json

import pytest
import torch
from helpers import save_image

from datasets import Batches, Classes, Images, classes_of
from datasets.labels import named
from datasets.sources import load_split
from settings.layers import resolve
from utils.errors import UserError

NAMES = ("zero", "one", "7", "Ankle boot", "ankle Boot")


def folder(tmp_path, **counts):
    """The configuration of a folder with so many pictures a class, and its training split."""
    for name, count in counts.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            save_image(tmp_path / name / f"{i}.png", (i, 0, 0))
    config, _ = resolve({"dataset": "folder", "data_dir": str(tmp_path), "image_size": 8, "conditional": "concat"})
    return config, load_split(config)


def test_the_label_of_a_sample_depends_on_the_seed_and_its_number_alone():
    classes = Classes(("a", "b", "c"), (1, 5, 2))
    whole = classes.labels(3, 0, 200)
    assert torch.equal(torch.cat([classes.labels(3, 0, 7), classes.labels(3, 7, 193)]), whole)
    assert not torch.equal(classes.labels(4, 0, 200), whole)


def test_labels_come_as_often_as_in_training():
    shares = torch.bincount(Classes(("a", "b", "c"), (1, 5, 2)).labels(0, 0, 4000), minlength=3) / 4000
    assert torch.allclose(shares, torch.tensor([1, 5, 2]) / 8, atol=0.03)  # four standard deviations
    assert Classes(("a", "b"), (0, 3)).labels(0, 0, 20).tolist() == [1] * 20


def test_batches_bring_each_image_with_its_label_and_draw_labels_as_often_as_they_come():
    images = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1)
    batches = Batches(images, 4, seed=0, labels=torch.arange(10) % 3)
    for _ in range(5):
        batch, labels = batches.next()
        assert torch.equal(labels, batch.flatten().long() % 3)
    generator = torch.Generator().manual_seed(0)
    shares = torch.bincount(batches.draw_labels(4000, generator)) / 4000
    assert torch.allclose(shares, torch.tensor([0.4, 0.3, 0.3]), atol=0.03)
    assert Batches(images, 4, seed=0).draw_labels(3, generator) is None


def test_the_classes_of_a_training_set_are_counted(tmp_path):
    config, images = folder(tmp_path, cat=2, dog=3)
    assert classes_of(config, images) == Classes(("cat", "dog"), (2, 3))
    assert classes_of(resolve({})[0], images) is None


def test_folders_that_are_no_classes_stand_in_no_ones_way(tmp_path):
    config, images = folder(tmp_path, cat=2, dog=2)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "of_cats.xml").write_text("")
    assert classes_of(config, images).names == ("cat", "dog")


def test_the_labels_of_a_dataset_json_go_before_the_folders(tmp_path):
    for i in range(4):
        save_image(tmp_path / "00000" / f"{i}.png", (60 * i, 0, 0))
    labels = [[f"00000/{i}.png", i % 2] for i in range(4)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert classes_of(*folder(tmp_path)).counts == (2, 2)


@pytest.mark.parametrize(
    "counts, words",
    [
        ({"cat": 2, "dog": 1}, "dog has 1"),
        ({"cat": 2, "dog": 2, "emu": 0}, "emu has no images"),
        ({"cat": 3}, "at least two classes, but it has cat"),
    ],
)
def test_a_folder_whose_classes_cannot_be_learned_is_refused_with_the_reason(tmp_path, counts, words):
    with pytest.raises(UserError, match=words):
        classes_of(*folder(tmp_path, **counts))


def test_images_without_labels_are_refused(tmp_path):
    save_image(tmp_path / "a.png", "red")
    config, images = folder(tmp_path, cat=2, dog=2)
    with pytest.raises(UserError, match=r"needs the class of every training image of folder.*put every image into"):
        classes_of(config, images)
    digits, _ = resolve({"conditional": "acgan"})
    unknown = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.full((4,), -1), ())
    with pytest.raises(UserError, match="every training image of digits"):
        classes_of(digits, unknown)
    with pytest.raises(UserError, match="STL-10 trains on its unlabelled images"):
        resolve({"dataset": "stl10", "conditional": "projection"})


def test_labels_that_start_at_1_are_refused_with_the_remedy(tmp_path):
    for i in range(4):
        save_image(tmp_path / "00000" / f"{i}.png", (60 * i, 0, 0))
    labels = [[f"00000/{i}.png", 1 + i % 2] for i in range(4)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    with pytest.raises(UserError, match=r"0 has no images: number the labels of dataset\.json from 0, add images"):
        classes_of(*folder(tmp_path))


def test_a_number_that_is_no_name_is_no_class_where_all_names_are_numbers():
    with pytest.raises(UserError, match=r"--labels 0: no such class\. The classes are 1, 2, 10$"):
        named(("1", "2", "10"), ["0"])


@pytest.mark.parametrize(
    "word, label",
    [("zero", 0), ("ZERO", 0), ("1", 1), ("4", 4), ("7", 2), ("Ankle boot", 3), ("ankle Boot", 4)],
)
def test_a_class_is_named_by_its_name_or_its_number(word, label):
    assert named(NAMES, [word]) == [label]


@pytest.mark.parametrize(
    "classes, word, label",
    [
        (("7 - seven", "8 - eight"), "eight", 1),
        (("7 - seven", "8 - eight"), "1", 1),
        (("7 - seven", "8 - eight"), "8", 1),
        (("5", "2", "1"), "1", 2),  # its name goes before another's number
        (("001", "002", "010"), "2", 1),
        (("1", "2", "10", "11"), "10", 2),
    ],
)
def test_a_number_and_a_word_of_a_name_are_enough_where_no_name_is_the_same(classes, word, label):
    assert named(classes, [word]) == [label]


@pytest.mark.parametrize(
    "word, words",
    [
        ("boot", "ambiguous: it could be number 3, Ankle boot or number 4, ankle Boot"),
        ("ANKLE BOOT", "ambiguous: it could be number 3, Ankle boot or number 4, ankle Boot"),
        ("sneaker", "The classes are zero, one, 7, Ankle boot, ankle Boot; or by number, 0 to 4"),
        ("-1", "no such class"),
        ("5", "no such class"),
        ("9" * 5000, "no such class"),
    ],
)
def test_a_word_that_names_no_class_or_two_is_refused_with_the_names(word, words):
    with pytest.raises(UserError, match=words):
        named(NAMES, [word])


def test_a_number_that_is_a_word_of_another_class_s_name_is_ambiguous():
    words = "--labels 1 is ambiguous: it could be number 0, 1 apple or number 1, 2 pear. Type the whole name"
    with pytest.raises(UserError, match=words):
        named(("1 apple", "2 pear", "3 fig"), ["1"])


def test_up_to_ten_classes_stand_for_all_in_a_picture():
    assert Classes(("a", "b", "c"), (1, 1, 1)).shown(10).tolist() == [0, 1, 2]
    assert Classes(tuple(map(str, range(100))), (1,) * 100).shown(10).tolist() == list(range(0, 100, 10))
