"""A user's own pictures from the folder or archive to Images: decoded once, seen to have changed, bad ones listed."""

import os
import shutil
import zipfile

import pytest
import torch
from helpers import ROOT, random_images, save_image
from PIL import Image

from datasets import load_split, pictures
from settings.config import Config
from utils.errors import UserError

CIFAR = ROOT / "shared" / "data" / "cifar10-jpeg.zip"


def own(place, **settings):
    return Config(**{"dataset": "folder", "data_dir": str(place), "image_size": 8, "channels": 1, **settings})


def load(place, split="train", **settings):
    """The Images, and what was said of them."""
    said = []
    return load_split(own(place, **settings), split, said.append), "\n".join(said)


def shades(images):
    return images.images[:, 0, 4, 4].tolist()


@pytest.fixture
def folder(tmp_path):
    """Three pictures of the shades 10, 20, 30 in two classes."""
    for name, shade in (("cat/a.png", 10), ("cat/b.png", 20), ("dog/c.png", 30)):
        save_image(tmp_path / "own" / name, (shade,) * 3)
    return tmp_path / "own"


@pytest.fixture
def decoded(monkeypatch):
    """How many pictures were decoded."""
    counts = []
    plain = pictures.decode_all

    def counted(root, names, *args):
        counts.append(len(names))
        return plain(root, names, *args)

    monkeypatch.setattr(pictures, "decode_all", counted)
    return counts


def test_pictures_are_decoded_once(folder, decoded):
    first, _ = load(folder)
    again, _ = load(folder)
    both, _ = load(folder, "test")
    assert decoded == [3]
    assert first.images.dtype == torch.uint8 and first.labels.dtype == torch.int64
    assert first.classes == again.classes == ("cat", "dog") and first.labels.tolist() == [0, 0, 1]
    assert torch.equal(first.images, again.images) and torch.equal(first.images, both.images)


def test_the_hash_that_is_kept_is_that_of_the_pixels_and_labels(folder):
    images, _ = load(folder)
    assert images.origin.sha256 == images.sha256() == images._replace(origin=None).sha256()


@pytest.mark.parametrize("change", ["another", "fewer", "other pixels"])
def test_a_change_is_noticed(folder, decoded, change):
    load(folder)
    if change == "another":
        save_image(folder / "dog" / "d.png", (40,) * 3)
    elif change == "fewer":
        (folder / "dog" / "c.png").unlink()
    else:
        save_image(folder / "dog" / "c.png", (50,) * 3)
        os.utime(folder / "dog" / "c.png", ns=(0, 5))
    expected = {"another": [10, 20, 30, 40], "fewer": [10, 20], "other pixels": [10, 20, 50]}[change]
    assert shades(load(folder)[0]) == expected
    assert len(list((folder / ".cache").glob("*.images"))) == 1  # the old ones take no room
    load(folder)
    assert len(decoded) == 2


@pytest.mark.parametrize("settings", [{"channels": 3}, {"image_size": 16}, {"crop": "none"}, {"background": (0, 0, 0)}])
def test_every_setting_that_changes_a_pixel_has_pixels_of_its_own(folder, decoded, settings):
    load(folder)
    load(folder, **settings)
    load(folder)
    assert decoded == [3, 3]


def test_a_cache_beside_the_data_moves_with_them_and_another_is_not_confused(folder, tmp_path, decoded):
    load(folder)
    shutil.move(folder, tmp_path / "moved")
    load(tmp_path / "moved")
    assert decoded == [3]
    save_image(tmp_path / "other" / "a.png", (99,) * 3)
    cache_dir = str(tmp_path / "cache")
    assert shades(load(tmp_path / "moved", cache_dir=cache_dir)[0]) == [10, 20, 30]
    assert shades(load(tmp_path / "other", cache_dir=cache_dir)[0]) == [99]
    assert shades(load(tmp_path / "moved", cache_dir=cache_dir)[0]) == [10, 20, 30]
    assert len(decoded) == 3 and not (tmp_path / "other" / ".cache").exists()


def test_an_archive_gives_what_its_folder_gives(folder, tmp_path):
    save_image(folder / "cat" / "e.png", (70,) * 3)
    shutil.make_archive(str(tmp_path / "own"), "zip", folder)
    packed, unpacked = load(tmp_path / "own.zip")[0], load(folder)[0]
    assert packed.sha256() == unpacked.sha256() and packed.classes == unpacked.classes
    assert list(tmp_path.glob(".cache/*.images"))


def test_splits_of_an_archive(tmp_path):
    for name, shade in (("train/a/1.png", 10), ("train/b/2.png", 20), ("test/b/3.png", 30)):
        save_image(tmp_path / "own" / name, (shade,) * 3)
    shutil.make_archive(str(tmp_path / "own"), "zip", tmp_path / "own")
    (train, _), (test, _) = load(tmp_path / "own.zip"), load(tmp_path / "own.zip", "test")
    assert (shades(train), train.labels.tolist(), shades(test), test.labels.tolist()) == ([10, 20], [0, 1], [30], [1])


def test_a_folder_that_changes_while_it_is_decoded_is_refused(folder, monkeypatch):
    plain = pictures.decode_all

    def decode_and_add(*args):
        save_image(folder / "dog" / "late.png", (1, 1, 1))
        return plain(*args)

    monkeypatch.setattr(pictures, "decode_all", decode_and_add)
    with pytest.raises(UserError, match="changed while its images were decoded"):
        load(folder)
    assert not [path for path in (folder / ".cache").iterdir() if path.name != ".lock"]


def test_what_was_found_is_kept_for_later_starts(tmp_path):
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")
    save_image(tmp_path / "b.png", (5, 5, 5), (6, 30))
    save_image(tmp_path / "c.tif", (5, 5, 5))
    (tmp_path / "notes.txt").write_text("")
    for _ in range(2):
        images, said = load(tmp_path)
        assert shades(images)[0] == 255
        assert "1 of 3 pictures are partly transparent; laid on 255,255,255" in said
        assert "1 .txt: notes.txt" in said
        assert images.origin.sizes == {
            "smallest": [8, 8],
            "largest": [40, 20],
            "commonest": [40, 20],
            "different": 3,
            "enlarged": 1,
        }


def test_what_cropping_takes_is_said(tmp_path):
    for i, size in enumerate([(30, 20), (20, 40), (10, 10), (40, 30)]):
        save_image(tmp_path / f"{i}.png", (9, 9, 9), size)
    told = "3 of 4 pictures; the median loss is 33% of a picture (--crop none keeps all of it, distorted)"
    assert told in load(tmp_path)[1] and told in load(tmp_path)[1]  # as kept, too
    assert "cropped" not in load(tmp_path, crop="none")[1]


def test_squares_are_not_said_to_be_cropped(folder):
    assert load(folder)[1] == ""


def test_what_is_said_of_other_files_is_of_now(folder):
    load(folder)
    (folder / "z.heic").write_bytes(b"")
    assert "z.heic" in load(folder)[1]


# ---- Bad files -----------------------------------------------------------------------------------------------------


def bad_files(folder):
    (folder / "cat" / "aa.png").write_bytes(b"")
    (folder / "dog" / "z.jpg").write_bytes(b"<html>")


def test_bad_files_are_all_listed_with_their_reasons(folder, decoded):
    bad_files(folder)
    for _ in range(2):  # the second time from what was found at the first
        with pytest.raises(UserError, match=r"cannot read 2 of the 5 images\. Remove .* --bad_images skip:") as error:
            load(folder)
        for line in (f"{folder}/cat/aa.png: it is not a picture", f"{folder}/dog/z.jpg: it is not a picture"):
            assert f"\n  {line}" in str(error.value)
    assert decoded == [5]


def test_bad_files_can_be_skipped_without_decoding_again(folder, decoded):
    bad_files(folder)
    with pytest.raises(UserError):
        load(folder)
    images, said = load(folder, bad_images="skip")
    assert decoded == [5]
    assert shades(images) == [10, 20, 30] and images.labels.tolist() == [0, 0, 1]
    assert images.origin.skipped == {"cat/aa.png": "it is not a picture", "dog/z.jpg": "it is not a picture"}
    assert "skipped 2 of 5 pictures, which cannot be read" in said
    assert images.sha256() == images._replace(origin=None).sha256()


def test_more_than_ten_bad_files_are_counted(tmp_path):
    for i in range(14):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    save_image(tmp_path / "good.png", (1, 1, 1))
    with pytest.raises(UserError, match=r"cannot read 14 of the 15 images") as error:
        load(tmp_path)
    assert str(error.value).count("it is not a picture") == 10 and str(error.value).endswith("\n  and 4 more")


def test_no_good_file_is_an_error_that_no_skipping_helps(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for bad_images in ("stop", "skip"):
        with pytest.raises(
            UserError, match=r"cannot read 1 of the 1 images\. Remove or replace them:\n .*a\.png: it is not a picture$"
        ):
            load(tmp_path, bad_images=bad_images)


def test_a_file_that_may_not_be_read_is_a_bad_one(folder, monkeypatch):
    def refuse(path, *args, plain=open, **options):
        if str(path).endswith("b.png"):
            raise PermissionError(13, "Permission denied", path)
        return plain(path, *args, **options)

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(UserError, match=r"b\.png: Permission denied"):
        load(folder)


def test_bad_members_of_an_archive_are_listed(folder, tmp_path):
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "cat" / "a.png", "a.png", zipfile.ZIP_DEFLATED)
        archive.write(folder / "cat" / "b.png", "b.png", zipfile.ZIP_BZIP2)
        archive.write(folder / "dog" / "c.png", "c.png")
        archive.writestr("bomb.bmp", bytes(2**20), zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    at = content.rindex(b"bomb.bmp") - 46 + 24  # in the directory, the unpacked size
    path.write_bytes(content[:at] + (2**31).to_bytes(4, "little") + content[at + 4 :])
    images, _ = load(path, bad_images="skip")
    assert shades(images) == [10, 30]
    assert images.origin.skipped == {
        "b.png": "its compression is neither stored nor deflated",
        "bomb.bmp": "it unpacks to 2,048 MiB",
    }


def test_a_damaged_member_of_an_archive_is_a_bad_one(tmp_path):
    path = tmp_path / "own.zip"
    Image.fromarray(random_images(8, 8, 3).numpy()).save(tmp_path / "a.bmp")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tmp_path / "a.bmp", "a.bmp")
        archive.write(tmp_path / "a.bmp", "b.bmp")
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.bmp: Bad CRC-32"):
        load(path)


# ---- Places --------------------------------------------------------------------------------------------------------


def test_names_that_are_no_utf_8_spaces_and_the_home(tmp_path, monkeypatch):
    from settings.layers import check_settings

    odd = tmp_path / "my own" / os.fsdecode(b"caf\xe9")
    save_image(odd / "a.png", (10, 10, 10))
    (odd / "bad.png").write_bytes(b"")
    assert shades(load(odd, bad_images="skip")[0]) == [10]
    monkeypatch.setenv("HOME", str(tmp_path))
    given = check_settings({"data_dir": "~/my own", "cache_dir": "~/kept"})
    images, _ = load(given["data_dir"], cache_dir=given["cache_dir"], bad_images="skip")
    assert shades(images) == [10] and list((tmp_path / "kept").glob("*.images"))


@pytest.mark.skipif(not CIFAR.exists(), reason="the real archive is not beside this project")
def test_the_real_archive_is_listed_with_its_splits_and_classes():
    from datasets.listing import list_split

    for split, each in (("train", 5000), ("test", 1000)):
        found = list_split(CIFAR, split)
        assert len(found.classes) == 10 and found.classes[:2] == ("airplane", "automobile")
        assert [found.labels.count(label) for label in range(10)] == [each] * 10
