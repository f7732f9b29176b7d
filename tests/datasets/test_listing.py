"""Which pictures there are: splits, classes, what is passed over, and archives that are meant to do harm."""

import json
import os
import zipfile

import pytest
from helpers import save_image

from datasets import load_split
from datasets.listing import choose_splits, has_test_split, list_split
from settings.config import Config
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
    assert all(words in said(found) for words in ("passed over in", "2 .txt, 1 ", "1 .mp4", "README"))


def test_no_pictures_are_an_error_that_names_what_there_is(data):
    with pytest.raises(UserError, match=r"no images below .*; it takes .*\.jfif.* \(1 \.txt: a\.txt\)"):
        list_split(data("a.txt"), "train")


def test_a_place_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a folder or \.zip archive, and .*absent is neither"):
        list_split(tmp_path / "absent", "train")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is neither"):
        list_split(tmp_path / "file", "train")


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
    assert f"{train}/ is trained on, and {test}/ are the test images" in said(found)


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
    assert "train in" in said(found) and "taken for a class: bus stand" in said(found)


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


# ---- Classes -------------------------------------------------------------------------------------------------------


def test_a_stray_picture_beside_class_folders_is_named(data):
    found = list_split(data("cat/1.png", "dog/2.png", "stray.png"), "train")
    assert (found.classes, found.labels) == ((), [-1, -1, -1])
    assert "not taken for classes, since images lie beside them: stray.png" in said(found)


LABELS = [["00000/a.png", 2], ["00000/b.png", 0], ["00001/c.png", 1]]
NAMES = [name for name, _ in LABELS]


def test_labels_of_stylegan_s_tools_are_read(data):
    found = list_split(data(*NAMES, **{"dataset.json": json.dumps({"labels": LABELS})}), "train")
    assert (found.classes, found.labels) == (("0", "1", "2"), [2, 0, 1])
    assert "3 classes" in said(found) and "passed over" not in said(found)


def test_without_labels_its_folders_are_no_classes(data):
    found = list_split(data(*NAMES, **{"dataset.json": '{"labels": null}'}), "train")
    assert (found.classes, found.labels) == ((), [-1] * 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not as StyleGAN's tools write it"),
        ("[" * 100_000, "not as StyleGAN's tools write it"),
        ('{"labels": 5}', "not as StyleGAN's tools write it"),
        ('{"labels": [["00000/a.png", 1.5]]}', "whole numbers"),
        ('{"labels": [["00000/a.png", 99999999999]]}', "whole numbers"),
        (json.dumps({"labels": LABELS[:2]}), r"has no label of 00001/c\.png"),
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


# ---- Archives ------------------------------------------------------------------------------------------------------


def test_one_folder_that_holds_all_of_an_archive_is_no_class(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("faces/1.png", "faces/2.png", "__MACOSX/faces/._1.png", "__MACOSX/x.png"):
            archive.writestr(name, b"")
    found = list_split(tmp_path / "a.zip", "train")
    assert (found.names, found.classes) == (["faces/1.png", "faces/2.png"], ())


@pytest.mark.parametrize(
    "name", ["../a.png", "b/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\\\host\\a.png"]
)
def test_a_name_that_leads_out_of_an_archive_leads_nowhere(tmp_path, name):
    place = tmp_path / "one" / "two"
    save_image(tmp_path / "a.png", (99, 0, 0))  # what ../ leads to
    save_image(place / "good.png", (10, 0, 0))
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        archive.write(place / "good.png", "good.png")
        archive.write(place / "good.png", name)
    before = {*tmp_path.rglob("*")}
    images = load_split(Config(dataset="folder", data_dir=str(place / "a.zip"), image_size=8)).images
    assert 1 <= len(images) <= 2 and (images[:, 0] == 10).all()
    made = {path.relative_to(place).parts[0] for path in {*tmp_path.rglob("*")} - before}
    assert made == {".cache"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/1.png", b"")
        archive.writestr("a/1.png", b"other")
    with pytest.raises(UserError, match=r"two files of one name: a/1\.png"):
        list_split(tmp_path / "a.zip", "train")


@pytest.mark.parametrize("damage", ["text", "empty", "cut"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"0123456789" * 9)
    whole = path.read_bytes()
    path.write_bytes({"text": b"<html>", "empty": b"", "cut": whole[:-30]}[damage])
    with pytest.raises(UserError, match=r"cannot read the archive .*a\.zip: "):
        list_split(path, "train")


def test_labels_that_are_damaged_in_an_archive_are_an_error_that_names_it(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", b"")
        archive.writestr("dataset.json", json.dumps({"labels": [["1.png", 0]]}) + " " * 500)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("dataset.json").header_offset + 30 + len("dataset.json")
    whole[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"cannot read .*a\.zip/dataset\.json: "):
        list_split(path, "train")


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_labels_that_are_packed_in_a_way_that_may_take_any_memory_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", b"")
        archive.writestr("dataset.json", "{}", kind)
    with pytest.raises(UserError, match=r"cannot read .*a\.zip/dataset\.json: it is neither stored nor deflated"):
        list_split(tmp_path / "a.zip", "train")
