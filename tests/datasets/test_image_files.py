"""Other programs' samples, from folders and .npz files, refused where a score would be wrong."""

import numpy as np
import pytest
import torch
from helpers import random_images
from PIL import Image

from datasets.image_files import load_samples, save_samples
from utils.errors import UserError

PIXELS = random_images(12, 8, 8, 3).numpy()

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


def enlarged(path):
    Image.fromarray(PIXELS[0].repeat(10, 0).repeat(10, 1)).save(path)


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_a_grid_of_samples_is_not_a_sample(tmp_path, form):
    enlarged(tmp_path / f"all.{form}")
    wanted = rf"all.{form}: it is 80x80, .* at 8x8\. Samples are never resized, nor cut "
    with pytest.raises(UserError, match=wanted):
        load_samples(tmp_path, 8, 3)


def test_the_picture_of_all_that_generate_writes_is_passed_over_and_said(tmp_path, capsys):
    enlarged(tmp_path / "grid.png")
    with pytest.raises(UserError, match=r"grid.png: it is 80x80"):  # where it stands alone
        load_samples(tmp_path, 8, 3)
    Image.fromarray(PIXELS[1]).save(tmp_path / "seed_1.png")
    assert torch.equal(load_samples(tmp_path, 8, 3), torch.from_numpy(PIXELS[1:2]).permute(0, 3, 1, 2))
    assert f"{tmp_path / 'grid.png'} is skipped" in capsys.readouterr().out


def test_samples_are_read_by_several_processes_as_by_one(tmp_path, monkeypatch):
    for i in range(12):
        Image.fromarray(PIXELS[i]).save(tmp_path / f"{i:02d}.png")
    monkeypatch.setattr("datasets.workers.PART", 4)
    monkeypatch.setattr("datasets.workers.ALONE", 4)
    monkeypatch.setattr("datasets.workers.cores", lambda: 2)
    assert torch.equal(load_samples(tmp_path, 8, 3), torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    for name in ("03.png", "07.png"):
        enlarged(tmp_path / name)
    with pytest.raises(
        UserError, match=r"(?s)cannot read 2 of the 12 images.*03.png: it is 80x80.*07.png: it is 80x80"
    ):
        load_samples(tmp_path, 8, 3)


def test_a_sample_that_cannot_be_read_and_a_folder_without_any_are_named(tmp_path):
    with pytest.raises(UserError, match=f"no images below {tmp_path}"):
        load_samples(tmp_path, 8, 3)
    (tmp_path / "bad.png").write_text("<html>")
    with pytest.raises(UserError, match=r"cannot read 1 of the 1 images\. .*:\n .*bad\.png: it is not a picture"):
        load_samples(tmp_path, 8, 3)


class Code:
    def __reduce__(self):
        return open, ("/dev/null",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"samples": PIXELS / 127.5 - 1}, r"holds float64, .*round\(\(x \+ 1\) \* 127.5\)"),
        ({"samples": PIXELS, "size": 16}, "is 8x8, but the real images are scored at 16x16"),
        ({"samples": PIXELS[..., 0]}, r"N x H x W x 3 like the real images, not \(12, 8, 8, 1\)"),
        ({"samples": PIXELS.transpose(0, 3, 1, 2)}, r"must be N x H x W x 3 .*not \(12, 3, 8, 8\)"),
        ({"samples": PIXELS[0, 0]}, "must be N x H x W x 3"),
        ({"samples": PIXELS[:0]}, "must be N x H x W x 3"),
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
