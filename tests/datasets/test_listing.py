"""Which pictures there are: splits, classes, and what is skipped."""

import json
import os
import re
import zipfile

import pytest
from helpers import save_image

from datasets.listing import choose_splits, has_test_split, list_split
from utils.errors import UserError


@pytest.fixture(params=["folder", "archive"])
def data(request, tmp_path):
    """Makes a folder or .zip archive of empty files, which are only listed, or of the given contents."""

    def make(*names, **contents):
        files = dict.fromkeys(names, b"") | {name: text.encode() for name, text in contents.items()}
        if request.param == "archive":
            with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return tmp_path / "data.zip"
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "data"

    return make


def said(found):
    return "\n".join(found.notes)


# ---- Which are taken -----------------------------------------------------------------------------------------------


def test_files_of_every_kind_are_taken_in_order_and_what_is_passed_over_is_named(data):
    pictures = ["a.jfif", "b.JPE", "c.Jpeg", "d.png", "e/f.webp", "e/g.tif", "e.gif", "z.ppm"]
    other = ["notes.txt", "more.txt", "e/film.mp4", "README"]
    found = list_split(data(*pictures, *other, ".hidden.png", ".git/a.png"), "train")
    assert found.names == ["a.jfif", "b.JPE", "c.Jpeg", "d.png", "e/f.webp", "e/g.tif", "e.gif", "z.ppm"]
    assert all(words in said(found) for words in ("skipped in", "2 .txt, 1 ", "1 .mp4", "README"))


def test_no_pictures_are_an_error_that_names_what_there_is(data):
    with pytest.raises(UserError, match=r"no images below .*; accepted: .*\.jfif.* \(1 \.txt: a\.txt\)"):
        list_split(data("a.txt"), "train")


def test_a_place_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent does not exist: say where your images are with --data_dir"):
        list_split(tmp_path / "absent", "train")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is neither"):
        list_split(tmp_path / "file", "train")


def test_the_default_place_without_pictures_names_the_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"Name their folder or \.zip archive with --data_dir"):
        list_split("data", "train")


def test_pictures_of_a_kind_that_is_not_read_are_named_with_the_remedy(data):
    found = list_split(data("a.png", *(f"{i}.txt" for i in range(9)), "z.HEIC"), "train")
    assert "save these pictures as JPEG or PNG to use them: z.HEIC" in said(found)


# ---- Splits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "TESTING"), ("TRAIN", "val"), ("train", "Validation")]
)
def test_splits_are_understood_by_their_names_and_said(data, train, test):
    place = data(f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/b/3.png", "README.txt", "docs/notes.txt")
    found, other = list_split(place, "train"), list_split(place, "test")
    assert [name.split("/")[-1] for name in found.names] == ["1.png", "2.png"]
    assert (other.classes, other.labels) == (("a", "b"), [1])  # with the training classes' numbers
    assert has_test_split(place)
    assert f"{train}/ is used for training, {test}/ for testing" in said(found)


def test_validation_stands_in_for_test_images_only_where_there_are_none(data):
    place = data("train/1.png", "val/2.png", "test/3.png")
    assert list_split(place, "test").names[0].endswith("3.png")
    assert "val/ is not used" in said(list_split(place, "train"))


def test_training_images_alone_are_both_splits(data, request):
    place = data("train/a/1.png", "train/b/2.png")
    assert not has_test_split(place)
    for split in ("train", "test"):
        assert (list_split(place, split).classes, list_split(place, split).labels) == (("a", "b"), [0, 1])


def test_a_class_that_is_called_train_beside_others_is_a_class(data):
    place = data("train/1.png", "bus/2.png", "test/3.png")
    found = list_split(place, "train")
    assert found.classes == ("bus", "test", "train") and found.labels == [0, 1, 2]
    assert not has_test_split(place)
    assert "train in" in said(found) and "taken for a class, because of bus next to it" in said(found)


def test_pictures_beside_train_and_test_make_them_plain_folders(data):
    found = list_split(data("train/1.png", "test/2.png", "3.png"), "train")
    assert len(found.names) == 3 and found.classes == ()


def test_two_folders_that_could_be_one_split_are_asked_about(data):
    with pytest.raises(UserError, match=r"train and training in .* could both be the train images: rename one"):
        list_split(data("train/1.png", "training/2.png", "test/3.png"), "train")


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (["test"], {}),
        (["cat", "dog"], {}),
        (["val", "test"], {}),
        (["train"], {"train": "train"}),
        (["Train", "VALID"], {"train": "Train", "test": "VALID"}),
        (["cat", "train"], {}),
    ],
)
def test_splits_by_the_names_of_folders(tmp_path, folders, splits):
    assert choose_splits(folders, False, tmp_path)[0] == splits
    assert choose_splits(folders, True, tmp_path)[0] == {}


def test_classes_of_test_images_that_are_not_trained_on_are_named(data):
    found = list_split(data("train/a/1.png", "train/b/2.png", "test/b/3.png", "test/c/4.png"), "test")
    assert found.labels == [1, -1] and "without training images count as unlabelled: c" in said(found)


# ---- Classes -------------------------------------------------------------------------------------------------------


def test_a_stray_picture_beside_class_folders_is_named(data):
    found = list_split(data("cat/1.png", "dog/2.png", "stray.png"), "train")
    assert (found.classes, found.labels) == ((), [-1, -1, -1])
    assert "not taken for classes, because images lie next to them: stray.png" in said(found)


@pytest.mark.parametrize(
    ("names", "natural", "text"),
    [
        (["1", "2", "10", "11"], ("1", "2", "10", "11"), ("1", "10", "11", "2")),
        (["007", "9", "10"], ("007", "9", "10"), ("007", "10", "9")),
        (["1", "10", "2b"], ("1", "10", "2b"), ("1", "10", "2b")),
    ],
)
def test_classes_that_are_all_whole_numbers_come_in_their_order(data, names, natural, text):
    place = data(*(f"{name}/{i}.png" for name in names for i in range(2)))
    for order, expected in (("natural", natural), ("text", text)):
        found = list_split(place, "train", order)
        assert found.classes == expected
        assert all(name.startswith(f"{expected[label]}/") for name, label in zip(found.names, found.labels))


LABELS = [["00000/a.png", 2], ["00000/b.png", 0], ["00001/c.png", 1]]
NAMES = [name for name, _ in LABELS]


def test_labels_of_stylegan_s_tools_are_read(data):
    found = list_split(data(*NAMES, **{"dataset.json": json.dumps({"labels": LABELS})}), "train")
    assert (found.classes, found.labels) == (("0", "1", "2"), [2, 0, 1])
    assert "3 classes" in said(found) and "skipped" not in said(found)


def test_labels_above_a_single_folder_are_read(data):
    labels = [["00000/a.png", 1], ["00000/b.png", 0]]
    found = list_split(data("00000/a.png", "00000/b.png", **{"dataset.json": json.dumps({"labels": labels})}), "train")
    assert (found.classes, found.labels) == (("0", "1"), [1, 0])


def test_without_labels_its_folders_are_no_classes(data):
    found = list_split(data(*NAMES, **{"dataset.json": '{"labels": null}'}), "train")
    assert (found.classes, found.labels) == ((), [-1] * 3)
    assert "dataset.json has no labels: delete it if the folders are the classes" in said(found)


def test_labels_of_what_is_not_there_are_said(data):
    found = list_split(data(*NAMES, **{"dataset.json": json.dumps({"labels": [*LABELS, ["b.heic", 7]]})}), "train")
    assert len(found.classes) == 3
    assert "dataset.json has labels for files that are not among the pictures: b.heic" in said(found)


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        (["faces/00000/a.png", "other/b.png", "faces/dataset.json"], "faces/dataset.json"),
        (["train/0/a.png", "test/0/b.png", "dataset.json"], "dataset.json"),
        (["00000/a.png", "Dataset.json"], "Dataset.json"),
        (["dataset.json/a.png"], None),
    ],
)
def test_labels_below_or_above_the_place_where_they_are_read_are_named(data, names, unused):
    found = list_split(data(*names), "train")
    told = "is not used, since labels are read from .*/dataset.json: move it there, or name its folder with --data_dir"
    assert len(re.findall(told, said(found))) == (unused is not None)
    assert unused is None or f"/{unused} is not used" in said(found)


def test_labels_beside_the_archive_or_above_the_folder_that_was_named_are_said(data, tmp_path):
    place = data("a.png")
    (tmp_path / "dataset.json").write_text("{}")
    assert f"{tmp_path / 'dataset.json'} is not used" in said(list_split(place, "train"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "does not have the format of StyleGAN's tools"),
        ("[" * 100_000, "does not have the format of StyleGAN's tools"),
        ('{"labels": 5}', "does not have the format of StyleGAN's tools"),
        ('{"labels": [["00000/a.png", "cat"]]}', "whole numbers from 0 to 99,999, and that of 00000/a.png is 'cat'"),
        ('{"labels": [["00000/a.png", 99999999999]]}', "whole numbers"),
        (json.dumps({"labels": LABELS[:2]}), r"has no label for 00001/c\.png: label every picture, or delete that"),
        (json.dumps({"labels": [*LABELS[:2], ["00001/c.png", None]]}), r"has no label for 00001/c\.png"),
        (json.dumps({"labels": [["x/a.png", 1]]}), r"for 00000/a.* labels for files .* the pictures: x/a\.png"),
    ],
)
def test_labels_that_do_not_fit_are_refused(data, content, words):
    with pytest.raises(UserError, match=words):
        list_split(data(*NAMES, **{"dataset.json": content}), "train")


# ---- Folders -------------------------------------------------------------------------------------------------------


def test_links_in_a_circle_end(tmp_path):
    save_image(tmp_path / "a" / "1.png", (1, 1, 1))
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self.png").symlink_to(tmp_path / "a" / "self.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "absent")
    found = list_split(tmp_path, "train")
    assert found.names == ["a/1.png"] and "2 .png: a/gone.png, a/self.png" in said(found)


def test_a_linked_folder_is_read(tmp_path):
    save_image(tmp_path / "elsewhere" / "1.png", (1, 1, 1))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    assert list_split(tmp_path / "data", "train").names == ["cat/1.png"]


def test_a_name_that_is_no_utf_8_and_spaces(tmp_path):
    odd = os.fsdecode(b"caf\xe9 au lait.png")
    save_image(tmp_path / "a b" / odd, (1, 1, 1))
    found = list_split(tmp_path, "train")
    assert found.names == [f"a b/{odd}"] and len(found.digest) == 64


@pytest.mark.parametrize("change", ["touched", "added", "removed", "renamed", "longer"])
def test_every_change_of_a_folder_changes_its_digest(tmp_path, change):
    for name in ("1.png", "2.png"):
        save_image(tmp_path / name, (1, 1, 1))
    before = list_split(tmp_path, "train").digest
    assert list_split(tmp_path, "train").digest == before
    one = tmp_path / "1.png"
    if change == "touched":
        os.utime(one, ns=(0, 1))
    elif change == "added":
        save_image(tmp_path / "3.png", (1, 1, 1))
    elif change == "removed":
        one.unlink()
    elif change == "renamed":
        one.rename(tmp_path / "0.png")
    else:
        time = one.stat().st_mtime_ns
        one.write_bytes(one.read_bytes() + b"\0")
        os.utime(one, ns=(time, time))
    assert list_split(tmp_path, "train").digest != before
