"""Files of images: pictures brought to a size, and other programs' samples, refused where a score would be wrong."""

import numpy as np
import pytest
import torch
from helpers import random_images, save_image
from PIL import Image

from datasets.image_files import list_images, load_samples, read_images, save_samples
from utils.errors import UserError

PIXELS = random_images(12, 8, 8, 3).numpy()

# ---- Pictures ------------------------------------------------------------------------------------------------------


def read(folder, channels=3):
    return read_images(list_images(folder)[0], 8, channels)


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    Image.fromarray(np.full((8, 8), 30000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert (read(tmp_path, channels=1) == 30000 >> 8).all()


def test_hidden_files_and_files_of_other_kinds_are_ignored(tmp_path):
    save_image(tmp_path / "a.png", (10, 10, 10))
    save_image(tmp_path / ".hidden.png", (20, 20, 20))
    (tmp_path / "._a.png").write_bytes(b"a resource fork of macOS")
    (tmp_path / "notes.txt").write_text("not an image")
    assert read(tmp_path)[:, 0, 0, 0].tolist() == [10]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
@pytest.mark.parametrize("size", [(8, 8), (20, 12), (5, 9)])
def test_images_of_any_mode_and_size_become_what_is_asked_for(tmp_path, mode, size):
    colour = (255, 255, 255) if mode == "1" else (10, 200, 30)
    save_image(tmp_path / "a.png", colour, size, mode)
    grey = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    expected = colour if mode in ("RGB", "RGBA", "P") else (grey,) * 3
    images = read(tmp_path)
    assert (images - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 1
    images = read(tmp_path, channels=1)
    assert images.shape == (1, 1, 8, 8)
    assert (images.int() - grey).abs().max() <= 1


def test_an_image_file_is_resized_and_its_centre_kept(tmp_path):
    bands = np.zeros((16, 32, 3), np.uint8)
    bands[:, 8:24], bands[:, 24:] = 100, 200
    Image.fromarray(bands).save(tmp_path / "a.png")
    assert (read(tmp_path)[..., 1:-1] == 100).all()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_corrupt_image_is_named(tmp_path, damage):
    save_image(tmp_path / "good.png", (1, 2, 3))
    bad = tmp_path / "sub" / "bad.png"
    bad.parent.mkdir()
    Image.fromarray(random_images(32, 32, 3).numpy()).save(bad)
    bad.write_bytes({"truncated": bad.read_bytes()[:1000], "text": b"<html>", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"cannot read the image .*sub/bad\.png"):
        read(tmp_path)


def test_a_folder_that_is_empty_or_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no images below {tmp_path}"):
        read(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/absent is not a folder"):
        read(tmp_path / "absent")


# ---- Samples -------------------------------------------------------------------------------------------------------


def test_an_npz_is_read_as_it_was_saved(tmp_path):
    images = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    save_samples(tmp_path / "ours.npz", images)
    assert torch.equal(load_samples(tmp_path / "ours.npz", 8, 3), images)
    np.savez(tmp_path / "numpy.npz", PIXELS)
    assert torch.equal(load_samples(tmp_path / "numpy.npz", 8, 3), images)
    np.savez(tmp_path / "grey.npz", samples=PIXELS[..., 0])
    assert torch.equal(load_samples(tmp_path / "grey.npz", 8, 1), images[:, :1])


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for i in reversed(range(12)):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"{i:02d}.png")
    assert torch.equal(load_samples(tmp_path, 8, 3), torch.from_numpy(PIXELS).permute(0, 3, 1, 2))


def test_a_grid_of_samples_is_not_a_sample(tmp_path):
    Image.fromarray(PIXELS[0].repeat(10, 0).repeat(10, 1)).save(tmp_path / "grid.png")
    with pytest.raises(UserError, match=r"grid.png is 80x80, .* at 8x8: samples are never resized, nor cut"):
        load_samples(tmp_path, 8, 3)


class Code:
    def __reduce__(self):
        return open, ("/dev/null",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"samples": PIXELS / 127.5 - 1}, r"holds float64; .*round\(\(x \+ 1\) \* 127.5\)"),
        ({"samples": PIXELS, "size": 16}, "is 8x8, and the real images are scored at 16x16"),
        ({"samples": PIXELS[..., 0]}, "has 1 channels, and the real images have 3"),
        ({"samples": PIXELS.transpose(0, 3, 1, 2)}, r"N x H x W x C is needed, C 1 or 3, not \(12, 3, 8, 8\)"),
        ({"samples": PIXELS[0, 0]}, "N x H x W x C is needed"),
        ({"samples": PIXELS[:0]}, "N x H x W x C is needed"),
        ({"images": PIXELS}, "has no array named samples or arr_0"),
        ({"samples": np.array([Code()])}, "neither a folder nor an .npz of numbers"),
    ],
)
def test_an_npz_that_cannot_be_scored_is_refused_with_the_reason(tmp_path, content, words):
    size = content.pop("size", 8)
    np.savez(tmp_path / "x.npz", **content)
    content["size"] = size
    with pytest.raises(UserError, match=words):
        load_samples(tmp_path / "x.npz", size, 3)


@pytest.mark.parametrize("damage", ["truncated", "text", "absent"])
def test_a_damaged_or_absent_file_is_named(tmp_path, damage):
    path = tmp_path / "x.npz"
    np.savez(path, samples=PIXELS)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "text":
        path.write_text("samples")
    else:
        path.unlink()
    with pytest.raises(UserError, match=str(path)):
        load_samples(path, 8, 3)
