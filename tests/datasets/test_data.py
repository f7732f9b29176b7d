"""Data sets in memory: what each source gives, how images are fitted, the two conversions, the stream of batches."""

import itertools
import math
import os
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from datasets.batches import Batches, steps_of
from datasets.images import fit, quantise, to_float
from datasets.sources import has_test_split, load_split
from utils.config import Config
from utils.errors import UserError

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def random_images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def no_network(monkeypatch):
    def urlopen(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


# ---- Digits --------------------------------------------------------------------------------------------------------


def test_digits_are_split_into_1498_and_299_different_images_of_all_ten_classes():
    from sklearn.datasets import load_digits

    config = Config(image_size=8, channels=1)
    train, test = load_split(config, "train"), load_split(config, "test")
    assert (train.images.shape, test.images.shape) == ((1498, 1, 8, 8), (299, 1, 8, 8))
    source = load_digits()
    for split, held_out in ((train, False), (test, True)):
        chosen = (np.arange(1797) % 6 == 5) == held_out  # every sixth is held out, so the two are disjoint
        assert np.array_equal(split.labels, source.target[chosen])
        assert np.abs(split.images[:, 0].numpy() - source.images[chosen] * 255 / 16).max() <= 0.5
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert (split.images.min(), split.images.max()) == (0, 255)
        assert split.labels.unique().tolist() == list(range(10))
        assert split.classes == tuple("0123456789")


def test_digits_are_enlarged_to_the_asked_size_and_colour():
    split = load_split(Config(image_size=16, channels=3), "test")
    assert split.images.shape == (299, 3, 16, 16)
    assert torch.equal(split.images[:, 0], split.images[:, 2])


# ---- fit() ---------------------------------------------------------------------------------------------------------


def test_28_pixels_are_padded_to_32_with_zeros():
    images = torch.from_numpy(random_images(3, 1, 28, 28))
    fitted = fit(images, 32, 1)
    assert torch.equal(fitted[:, :, 2:30, 2:30], images)
    fitted[:, :, 2:30, 2:30] = 0
    assert fitted.shape == (3, 1, 32, 32) and fitted.sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_fit_already_stay_as_they_are(channels):
    images = torch.from_numpy(random_images(3, channels, 16, 16))
    assert torch.equal(fit(images, 16, channels), images)


@pytest.mark.parametrize(("side", "image_size"), [(28, 64), (8, 32), (96, 48), (32, 8), (20, 128)])
def test_a_resized_constant_image_stays_constant(side, image_size):
    shades = torch.tensor([0, 1, 127, 255], dtype=torch.uint8).view(-1, 1, 1, 1)
    fitted = fit(shades.expand(-1, 3, side, side), image_size, 3)
    assert torch.equal(fitted, shades.expand(-1, 3, image_size, image_size))


def test_the_centre_of_an_image_that_is_not_square_is_kept():
    images = torch.from_numpy(random_images(2, 3, 8, 16))
    assert torch.equal(fit(images, 8, 3), images[..., 4:12])
    assert torch.equal(fit(images.mT, 8, 3), images[..., 4:12].mT)


def test_the_shorter_side_is_resized_before_the_crop():
    bands = torch.zeros(1, 1, 32, 64, dtype=torch.uint8)
    bands[..., 16:48], bands[..., 48:] = 100, 200
    fitted = fit(bands, 16, 1)  # of 16 x 32, the middle
    assert fitted.shape == (1, 1, 16, 16)
    assert (fitted[..., 1:-1] == 100).all()


def test_grey_from_colour_is_itu_r_601_luma():
    images = random_images(5, 3, 8, 8)
    luma = images[:, 0] * 0.299 + images[:, 1] * 0.587 + images[:, 2] * 0.114
    assert np.abs(fit(torch.from_numpy(images), 8, 1)[:, 0].numpy() - luma).max() <= 0.5 + 255 / 2**16
    assert (fit(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), 8, 1) == 255).all()


def test_colour_from_grey_is_three_equal_planes():
    images = torch.from_numpy(random_images(5, 1, 8, 8))
    fitted = fit(images, 8, 3)
    assert fitted.shape == (5, 3, 8, 8)
    assert all(torch.equal(fitted[:, i], images[:, 0]) for i in range(3))


def test_more_images_than_are_resized_at_once_keep_their_order(monkeypatch):
    monkeypatch.setattr("datasets.images.RESIZE_CHUNK", 3)
    shades = torch.arange(10, dtype=torch.uint8).view(-1, 1, 1, 1)
    assert torch.equal(fit(shades.expand(-1, 1, 16, 16), 8, 1)[:, 0, 0, 0], shades.flatten())


# ---- A folder ------------------------------------------------------------------------------------------------------


def save_image(path, colour, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode, palette=Image.Palette.ADAPTIVE).save(path)


def folder_config(path, image_size=8, channels=3):
    return Config(dataset="folder", data_dir=str(path), image_size=image_size, channels=channels)


def test_a_flat_folder_gives_its_images_in_the_order_of_their_names_without_labels(tmp_path):
    for name, shade in (("b.png", 20), ("a.png", 10), ("c.JPG", 30)):
        save_image(tmp_path / name, (shade,) * 3)
    split = load_split(folder_config(tmp_path))
    assert split.images.shape == (3, 3, 8, 8) and split.images.dtype == torch.uint8
    assert split.images[:, 0, 4, 4].tolist() == [10, 20, 30]
    assert (split.labels.tolist(), split.classes) == ([-1, -1, -1], ())


def test_one_folder_a_class_gives_labels(tmp_path):
    for name, shade in (("dog/x.png", 30), ("cat/deep/y.png", 10), ("cat/z.png", 20)):
        save_image(tmp_path / name, (shade,) * 3)
    split = load_split(folder_config(tmp_path, channels=1))
    assert split.classes == ("cat", "dog")
    assert dict(zip(split.images[:, 0, 0, 0].tolist(), split.labels.tolist())) == {10: 0, 20: 0, 30: 1}


def test_subfolders_train_and_test_are_the_splits(tmp_path):
    for name, shade in (("train/a/1.png", 10), ("train/b/2.png", 20), ("test/a/3.png", 30), ("test/b/4.png", 40)):
        save_image(tmp_path / name, (shade,) * 3)
    config = folder_config(tmp_path, channels=1)
    train, test = load_split(config), load_split(config, "test")
    assert (train.images[:, 0, 0, 0].tolist(), train.labels.tolist()) == ([10, 20], [0, 1])
    assert (test.images[:, 0, 0, 0].tolist(), test.labels.tolist()) == ([30, 40], [0, 1])
    assert train.classes == test.classes == ("a", "b")
    assert has_test_split(config)


def test_without_train_and_test_every_image_is_in_both_splits(tmp_path):
    save_image(tmp_path / "a.png", (10, 10, 10))
    config = folder_config(tmp_path)
    assert torch.equal(load_split(config).images, load_split(config, "test").images)
    assert not has_test_split(config)
    assert has_test_split(Config())


def test_a_train_folder_without_a_test_folder_is_both_splits(tmp_path):
    save_image(tmp_path / "train" / "a" / "0.png", (1, 1, 1))
    save_image(tmp_path / "train" / "b" / "0.png", (2, 2, 2))
    for split in ("train", "test"):
        loaded = load_split(folder_config(tmp_path), split)
        assert loaded.classes == ("a", "b") and loaded.labels.tolist() == [0, 1]
    assert not has_test_split(folder_config(tmp_path))


def test_test_images_have_the_numbers_of_the_training_classes(tmp_path):
    for name in ("a", "b", "c"):
        save_image(tmp_path / "train" / name / "0.png", (1, 1, 1))
    save_image(tmp_path / "test" / "c" / "0.png", (2, 2, 2))
    loaded = load_split(folder_config(tmp_path), "test")
    assert loaded.classes == ("a", "b", "c") and loaded.labels.tolist() == [2]


def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path):
    Image.fromarray(np.full((8, 8), 30000, dtype=np.uint16)).save(tmp_path / "deep.png")
    loaded = load_split(folder_config(tmp_path, channels=1))
    assert (loaded.images == 30000 >> 8).all()


def test_hidden_folders_are_ignored(tmp_path):
    save_image(tmp_path / "a" / "0.png", (1, 1, 1))
    save_image(tmp_path / ".thumbs" / "0.png", (9, 9, 9))
    assert load_split(folder_config(tmp_path)).classes == ("a",)


def test_hidden_files_and_files_of_other_kinds_are_ignored(tmp_path):
    save_image(tmp_path / "a.png", (10, 10, 10))
    save_image(tmp_path / ".hidden.png", (20, 20, 20))
    (tmp_path / "._a.png").write_bytes(b"a resource fork of macOS")
    (tmp_path / "notes.txt").write_text("not an image")
    assert load_split(folder_config(tmp_path)).images[:, 0, 0, 0].tolist() == [10]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
@pytest.mark.parametrize("size", [(8, 8), (20, 12), (5, 9)])
def test_images_of_any_mode_and_size_become_what_is_asked_for(tmp_path, mode, size):
    colour = (255, 255, 255) if mode == "1" else (10, 200, 30)
    save_image(tmp_path / "a.png", colour, size, mode)
    grey = round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])
    expected = colour if mode in ("RGB", "RGBA", "P") else (grey,) * 3
    images = load_split(folder_config(tmp_path)).images
    assert (images - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 1
    images = load_split(folder_config(tmp_path, channels=1)).images
    assert images.shape == (1, 1, 8, 8)
    assert (images.int() - grey).abs().max() <= 1


def test_an_image_file_is_resized_and_its_centre_kept(tmp_path):
    bands = np.zeros((16, 32, 3), np.uint8)
    bands[:, 8:24], bands[:, 24:] = 100, 200
    Image.fromarray(bands).save(tmp_path / "a.png")
    assert (load_split(folder_config(tmp_path)).images[..., 1:-1] == 100).all()


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_corrupt_image_is_named(tmp_path, damage):
    save_image(tmp_path / "good.png", (1, 2, 3))
    bad = tmp_path / "sub" / "bad.png"
    bad.parent.mkdir()
    Image.fromarray(random_images(32, 32, 3)).save(bad)
    bad.write_bytes({"truncated": bad.read_bytes()[:1000], "text": b"<html>", "empty": b""}[damage])
    with pytest.raises(UserError, match=r"cannot read the image .*sub/bad\.png"):
        load_split(folder_config(tmp_path))


def test_a_folder_that_is_empty_or_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=f"no images below {tmp_path}"):
        load_split(folder_config(tmp_path))
    with pytest.raises(UserError, match=f"{tmp_path}/absent is not a folder"):
        load_split(folder_config(tmp_path / "absent"))


# ---- torchvision's data sets, from files as their authors publish them ---------------------------------------------


def write_idx(path, array):
    """The format of yann.lecun.com/exdb/mnist: two zero bytes, 8 for uint8, the rank, big-endian sizes, the values."""
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("dataset", "folder", "first_class"), [("mnist", "MNIST", "0 - zero"), ("fashion_mnist", "FashionMNIST", "T-shirt")]
)
def test_mnist_and_fashion_mnist_are_read_from_idx_files(tmp_path, no_network, dataset, folder, first_class):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    written = {
        "train": (random_images(5, 28, 28), [4, 0, 9, 1, 1]),
        "t10k": (random_images(3, 28, 28, seed=1), [7, 2, 5]),
    }
    for name, (images, labels) in written.items():
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.array(labels, np.uint8))
    for name, split in (("train", "train"), ("t10k", "test")):
        images, labels = written[name]
        loaded = load_split(Config(dataset=dataset, data_dir=str(tmp_path), channels=1), split)
        assert loaded.images.shape == (len(labels), 1, 32, 32) and loaded.images.dtype == torch.uint8
        assert np.array_equal(loaded.images[:, 0, 2:30, 2:30], images)
        assert (loaded.labels.tolist(), loaded.labels.dtype) == (labels, torch.int64)
        assert len(loaded.classes) == 10 and loaded.classes[0].startswith(first_class)


def accept_any_content(monkeypatch, module):
    """torchvision knows the published files' md5; the tests' tiny ones only have to be there."""
    monkeypatch.setattr(f"{module.__module__}.check_integrity", lambda path, md5=None: os.path.isfile(path))


@pytest.mark.parametrize(
    ("dataset", "Source", "key", "classes"),
    [("cifar10", datasets.CIFAR10, "labels", 10), ("cifar100", datasets.CIFAR100, "fine_labels", 100)],
)
def test_cifar_is_read_from_its_python_batches(tmp_path, no_network, monkeypatch, dataset, Source, key, classes):
    accept_any_content(monkeypatch, datasets.CIFAR10)
    root = tmp_path / Source.base_folder
    root.mkdir()
    expected = {"train": ([], []), "test": ([], [])}
    files = [("train", name) for name, _ in Source.train_list] + [("test", name) for name, _ in Source.test_list]
    for i, (split, name) in enumerate(files):
        images, labels = random_images(2, 3, 32, 32, seed=i), [i, classes - 1 - i]
        # A row is an image: 1,024 red values, then green, then blue.
        (root / name).write_bytes(pickle.dumps({"data": images.reshape(2, 3072), key: labels}))
        expected[split][0].append(images)
        expected[split][1].extend(labels)
    names = [f"class {i}" for i in range(classes)]
    (root / Source.meta["filename"]).write_bytes(pickle.dumps({Source.meta["key"]: names}))
    for split, (images, labels) in expected.items():
        loaded = load_split(Config(dataset=dataset, data_dir=str(tmp_path)), split)
        assert np.array_equal(loaded.images, np.concatenate(images)) and loaded.images.dtype == torch.uint8
        assert (loaded.labels.tolist(), loaded.labels.dtype) == (labels, torch.int64)
        assert loaded.classes == tuple(names)


def test_stl10_trains_on_its_unlabelled_images_and_tests_on_the_labelled_ones(tmp_path, no_network, monkeypatch):
    accept_any_content(monkeypatch, datasets.STL10)
    root = tmp_path / "stl10_binary"
    root.mkdir()
    images = np.zeros((4, 3, 96, 96), np.uint8)
    images[:, :, :48] = np.array([10, 20, 30, 40]).reshape(4, 1, 1, 1)  # the upper halves
    images[:, 2, 48:] = 200  # the lower ones are blue
    for name, count in (("unlabeled", 4), ("test", 2), ("train", 1)):
        (root / f"{name}_X.bin").write_bytes(images[:count].transpose(0, 1, 3, 2).tobytes())  # columns first
    (root / "test_y.bin").write_bytes(bytes([10, 1]))  # counted from 1
    (root / "train_y.bin").write_bytes(bytes([3]))
    names = [f"class {i}" for i in range(10)]
    (root / "class_names.txt").write_text("\n".join(names))
    config = Config(dataset="stl10", data_dir=str(tmp_path), image_size=48)
    train, test = load_split(config), load_split(config, "test")
    assert (train.images.shape, test.images.shape) == ((4, 3, 48, 48), (2, 3, 48, 48))
    for i, shade in enumerate((10, 20, 30, 40)):
        assert (train.images[i, :, :23] == shade).all()
        assert (train.images[i, 2, 25:] == 200).all() and (train.images[i, :2, 25:] == 0).all()
    assert torch.equal(train.images[:2], test.images)
    assert (train.labels.tolist(), test.labels.tolist()) == ([-1] * 4, [9, 0])
    assert train.labels.dtype == test.labels.dtype == torch.int64
    assert test.classes == tuple(names)


@pytest.mark.parametrize(
    ("dataset", "files"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
    ],
)
def test_no_data_and_no_network_names_the_data_set_the_place_the_files_and_a_way_on(
    tmp_path, no_network, dataset, files
):
    with pytest.raises(UserError) as error:
        load_split(Config(dataset=dataset, data_dir=str(tmp_path)))
    message = str(error.value)
    for part in (f"data set {dataset} ", str(tmp_path), "by hand", files, "--data_dir", "--dataset digits"):
        assert part in message
    assert "Name or service not known" in message
    assert "\n" not in message


def test_a_truncated_mnist_file_is_refused_as_incomplete_data(tmp_path, no_network):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        write_idx(raw / f"{name}-images-idx3-ubyte", random_images(5, 28, 28))
        write_idx(raw / f"{name}-labels-idx1-ubyte", np.zeros(5, np.uint8))
    images = raw / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(UserError, match="data set mnist is not complete"):
        load_split(Config(dataset="mnist", data_dir=str(tmp_path)))


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").exists(), reason="the real MNIST is not beside this project")
def test_the_real_mnist_is_60000_padded_images_of_the_known_mean(no_network):
    split = load_split(Config(dataset="mnist", data_dir=str(SHARED_DATA), channels=1))
    assert split.images.shape == (60_000, 1, 32, 32)
    mean = split.images.sum(dtype=torch.int64).item() / split.images.numel()
    assert mean == pytest.approx(0.1307 * 255 * 28**2 / 32**2, rel=1e-3)
    assert split.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


# ---- Conversions ---------------------------------------------------------------------------------------------------

LEVELS = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1)


@pytest.mark.parametrize(("noise", "highest"), [(0.0, 255 / 128 - 1), (1 - 2**-24, 1 - 2**-24)])
def test_every_level_becomes_a_float_from_minus_1_to_below_1_whatever_the_noise(monkeypatch, noise, highest):
    monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.full(shape, noise))
    floats = to_float(LEVELS, None)
    assert floats.dtype == torch.float32
    assert floats.min() >= -1 and floats.max() < 1
    assert floats.max() == highest
    assert torch.allclose(floats.flatten(), (torch.arange(256.0) + noise) / 128 - 1, rtol=0, atol=2**-23)


def test_the_noise_fills_the_step_between_two_levels_evenly():
    generator = torch.Generator().manual_seed(0)
    images = torch.full((10, 1, 100, 100), 100, dtype=torch.uint8)
    noise = (to_float(images, generator).double() + 1) * 128 - 100
    assert -1e-4 <= noise.min() < 0.001 and 0.999 < noise.max() <= 1 + 1e-4
    assert noise.mean().item() == pytest.approx(0.5, abs=0.003)
    assert noise.var().item() == pytest.approx(1 / 12, abs=0.001)


def test_the_noise_comes_from_the_generator():
    first, second, other = (to_float(LEVELS, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("value", "level"),
    [(-1.0, 0), (1.0, 255), (0.0, 128), (0.5, 191), (-0.5, 64), (1 / 127.5 - 1, 1), (0.49 / 127.5 - 1, 0)],
)
def test_quantise_rounds_to_the_nearest_of_256_levels(value, level):
    assert quantise(torch.tensor([value])).tolist() == [level]  # 0 is 127.5, which rounds to the even 128


def test_quantise_clamps_what_lies_outside_instead_of_wrapping_it_around():
    levels = quantise(torch.tensor([-3.0, -1.01, 1.01, 3.0]))
    assert levels.dtype == torch.uint8
    assert levels.tolist() == [0, 0, 255, 255]


def test_quantise_undoes_to_float_within_one_level():
    images = LEVELS.expand(-1, 1, 16, 16)
    back = quantise(to_float(images, torch.Generator().manual_seed(0)))
    assert (back.int() - images.int()).abs().max() <= 1


# ---- Batches -------------------------------------------------------------------------------------------------------


def stream(batch_size, seed=0, count=10):
    return Batches(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), batch_size, seed)


def draw(batches, count):
    """The next `count` batches as lists of the images' values."""
    return [batches.next().flatten().tolist() for _ in range(count)]


def test_an_epoch_holds_each_image_once():
    first, second = draw(stream(5), 2)
    assert len(first) == len(second) == 5
    assert sorted(first + second) == list(range(10))


def test_a_batch_at_the_end_of_an_epoch_is_filled_up_from_the_next():
    drawn = draw(stream(4), 5)
    assert [len(batch) for batch in drawn] == [4] * 5
    values = list(itertools.chain.from_iterable(drawn))
    assert sorted(values[:10]) == sorted(values[10:]) == list(range(10))


def test_a_batch_larger_than_the_data_set_holds_whole_epochs_and_a_part_of_one():
    (batch,) = draw(stream(25), 1)
    assert sorted(batch[:10]) == sorted(batch[10:20]) == list(range(10))
    assert len(set(batch[20:])) == 5


def test_the_order_is_a_function_of_the_seed_and_changes_with_each_epoch():
    first, again, other = draw(stream(10), 3), draw(stream(10), 3), draw(stream(10, seed=1), 3)
    assert first == again
    assert first != other
    assert len({tuple(epoch) for epoch in first}) == 3
    assert first[0] != list(range(10))


def test_the_order_does_not_depend_on_the_global_random_state_and_leaves_it_alone():
    torch.manual_seed(1)
    first, after = draw(stream(4), 5), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert draw(stream(4), 5) == first


@pytest.mark.parametrize("before", [0, 1, 2, 3, 5])
def test_a_stream_goes_on_exactly_from_its_state(before):
    original, restored = stream(4), stream(4)
    draw(original, before)
    state = original.state_dict()
    expected = draw(original, 6)
    draw(restored, 7)
    restored.load_state_dict(state)
    assert draw(restored, 6) == expected


@pytest.mark.parametrize(
    ("num_epochs", "num_images", "batch_size", "n_dis", "steps"),
    [
        (1, 1000, 100, 1, 10),
        (1, 1001, 100, 1, 11),
        (50, 60_000, 64, 1, 46_875),
        (10, 1000, 100, 5, 20),
        (1, 10, 64, 5, 1),
    ],
)
def test_steps_are_the_updates_of_g_in_so_many_passes_of_d(num_epochs, num_images, batch_size, n_dis, steps):
    assert steps_of(num_epochs, num_images, batch_size, n_dis) == steps
    assert steps == max(1, math.ceil(num_epochs * num_images / batch_size / n_dis))
