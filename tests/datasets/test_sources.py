"""What each source of images gives: digits, a folder's splits and labels, torchvision's data sets from their files."""

import dataclasses
import os
import pickle
import shutil
import struct
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from helpers import ROOT, random_images, save_image
from torchvision import datasets

from datasets.sources import check_place, has_test_split, load_split
from settings.config import Config
from utils.errors import UserError

SHARED_DATA = ROOT / "shared" / "data"


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


# ---- A folder ------------------------------------------------------------------------------------------------------


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


def test_hidden_folders_are_ignored(tmp_path):
    save_image(tmp_path / "a" / "0.png", (1, 1, 1))
    save_image(tmp_path / ".thumbs" / "0.png", (9, 9, 9))
    assert load_split(folder_config(tmp_path)).classes == ("a",)


# ---- torchvision's data sets, from files as their authors publish them ---------------------------------------------


def write_idx(raw, name, images, labels):
    """The format of yann.lecun.com/exdb/mnist: two zero bytes, 8 for uint8, the rank, big-endian sizes, the values."""
    raw.mkdir(parents=True, exist_ok=True)
    for what, array in (("images-idx3", images.numpy()), ("labels-idx1", np.array(labels, np.uint8))):
        header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
        (raw / f"{name}-{what}-ubyte").write_bytes(header + array.tobytes())


@pytest.mark.parametrize(
    ("dataset", "folder", "first_class"), [("mnist", "MNIST", "0 - zero"), ("fashion_mnist", "FashionMNIST", "T-shirt")]
)
def test_mnist_and_fashion_mnist_are_read_from_idx_files(tmp_path, no_network, dataset, folder, first_class):
    written = {
        "train": (random_images(5, 28, 28), [4, 0, 9, 1, 1]),
        "t10k": (random_images(3, 28, 28, seed=1), [7, 2, 5]),
    }
    for name, (images, labels) in written.items():
        write_idx(tmp_path / folder / "raw", name, images, labels)
    for name, split in (("train", "train"), ("t10k", "test")):
        images, labels = written[name]
        loaded = load_split(Config(dataset=dataset, data_dir=str(tmp_path), channels=1), split)
        assert loaded.images.shape == (len(labels), 1, 32, 32) and loaded.images.dtype == torch.uint8
        assert torch.equal(loaded.images[:, 0, 2:30, 2:30], images)
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
        images, labels = random_images(2, 3, 32, 32, seed=i).numpy(), [i, classes - 1 - i]
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


@pytest.mark.parametrize(("dataset", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize("place", ["{}", "{}/raw", "{}/raw/.", "link"])
def test_the_four_files_are_found_where_the_folder_itself_is_named(tmp_path, no_network, dataset, folder, place):
    for name in ("train", "t10k"):
        write_idx(tmp_path / folder / "raw", name, random_images(2, 28, 28), [3, 4])
    (tmp_path / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    loaded = load_split(Config(dataset=dataset, data_dir=str(tmp_path / place.format(folder)), channels=1))
    assert loaded.labels.tolist() == [3, 4] and sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_that_name_with_a_data_set_of_its_own_is_the_place(tmp_path, no_network):
    for place, label in (("MNIST/raw", 1), ("MNIST/MNIST/raw", 2)):
        for name in ("train", "t10k"):
            write_idx(tmp_path / place, name, random_images(1, 28, 28), [label])
    assert load_split(Config(dataset="mnist", data_dir=str(tmp_path / "MNIST"), channels=1)).labels.tolist() == [2]


@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "stl10", "stacked_digits"])
def test_pictures_for_another_data_set_are_refused(tmp_path, dataset):
    config = Config(dataset=dataset, data_dir=str(tmp_path))
    check_place(config)
    save_image(tmp_path / "cat" / "a.png", (1, 1, 1))
    with pytest.raises(UserError, match=f"holds pictures, which {dataset} does not use: add --dataset folder to use"):
        check_place(config)
    shutil.make_archive(str(tmp_path / "own"), "zip", tmp_path)
    with pytest.raises(UserError, match="add --dataset folder"):
        check_place(dataclasses.replace(config, data_dir=str(tmp_path / "own.zip")))
    check_place(dataclasses.replace(config, dataset="folder"))
    check_place(dataclasses.replace(config, data_dir=str(tmp_path / "absent")))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)  # one of several data sets that lie there
    check_place(config)


def test_pictures_beside_a_published_archive_are_no_obstacle(tmp_path):
    save_image(tmp_path / "cat" / "a.png", (1, 1, 1))
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    check_place(Config(dataset="cifar10", data_dir=str(tmp_path)))


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


@pytest.mark.skipif(not (SHARED_DATA / "MNIST").exists(), reason="the real MNIST is not beside this project")
def test_the_real_mnist_is_60000_padded_images_of_the_known_mean(no_network):
    split = load_split(Config(dataset="mnist", data_dir=str(SHARED_DATA), channels=1))
    assert split.images.shape == (60_000, 1, 32, 32)
    mean = split.images.sum(dtype=torch.int64).item() / split.images.numel()
    assert mean == pytest.approx(0.1307 * 255 * 28**2 / 32**2, rel=1e-3)
    assert split.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
