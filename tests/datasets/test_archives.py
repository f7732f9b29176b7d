"""Archives of pictures: one folder that holds all, names that are meant to do harm, and damage."""

import json
import zipfile

import pytest
from helpers import save_image

from datasets import load_split
from datasets.listing import list_split
from settings.config import Config
from utils.errors import UserError


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
    with pytest.raises(UserError, match=r"two files with the same name: a/1\.png"):
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
    with pytest.raises(UserError, match=r"cannot read .*a\.zip/dataset\.json: its compression is neither stored"):
        list_split(tmp_path / "a.zip", "train")
