"""Feature extractors: the classifier and its cache, Inception and what is refused in its place."""

import hashlib
import os
import pickle
import signal
import urllib.error

import pytest
import torch
from helpers import random_images

from datasets.images import Images
from datasets.sources import load_split
from evaluation.inputs import features
from evaluation.inputs import inception as inception_module
from settings.config import Config
from utils.errors import Stopped, UserError

CPU = torch.device("cpu")
train_classifier = features.train_classifier


def quiet(text):
    """A `say` that says nothing."""


# ---- The classifier ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load_split(Config(image_size=8, channels=1))


@pytest.fixture
def trainings(monkeypatch):
    """Trains the classifier for one epoch only, and counts how often."""
    calls = []

    def train_briefly(train, device, epochs, chosen=None):
        calls.append(epochs)
        return train_classifier(train, device, 1, chosen)

    monkeypatch.setattr(features, "train_classifier", train_briefly)
    return calls


def digits_config(tmp_path):
    return Config(image_size=8, channels=1, data_dir=str(tmp_path))


def test_the_classifier_names_more_than_95_percent_of_unseen_digits_rightly(digits):
    network = train_classifier(digits, CPU, epochs=5)
    test = load_split(Config(image_size=8, channels=1), "test")
    assert features.examine(network, test, CPU) > 0.95
    assert not network.training


def test_the_classifier_is_the_same_whatever_was_drawn_before_and_draws_nothing_itself(digits):
    few = Images(digits.images[:200], digits.labels[:200], digits.classes)
    torch.manual_seed(1)
    first, after = train_classifier(few, CPU, epochs=1), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    second = train_classifier(few, CPU, epochs=1)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (16, 3), (32, 1), (48, 3), (64, 1), (128, 3)])
def test_the_classifier_takes_every_image_size_and_gives_features_and_logits(image_size, channels):
    images = random_images(2, channels, image_size, image_size)
    found, logits = features.Classifier(image_size, channels, 7).eval()(images)
    assert (found.shape, logits.shape) == ((2, 128), (2, 7))


def test_a_classifier_is_examined_by_the_share_that_is_named_rightly():
    class Oracle(torch.nn.Module):
        def forward(self, images):
            return None, torch.eye(4)[images[:, 0, 0, 0].long()]

    images = torch.tensor([0, 1, 2, 3, 0], dtype=torch.uint8).view(-1, 1, 1, 1)
    split = Images(images, torch.tensor([0, 1, 2, 0, 1]), tuple("abcd"))
    assert features.examine(Oracle(), split, CPU) == 0.6


def test_without_test_images_a_classifier_is_judged_by_images_that_a_second_one_did_not_see(tmp_path):
    labels = torch.arange(60) % 2  # which no one can tell from noise
    train, said = Images(random_images(60, 1, 8, 8), labels, ("a", "b")), []
    config = Config(dataset="folder", data_dir=str(tmp_path), image_size=8, channels=1)
    found = features.load_classifier(config, train, CPU, said.append)
    assert features.examine(found, train, CPU) == 1.0  # it knows its own by heart, as it did before
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), train_classifier(train, CPU, 100).parameters()))
    assert found.examined["split"] == "held-out" and found.examined["accuracy"] < 0.9
    assert said[-1] == f"classifier of folder: held-out accuracy {found.examined['accuracy']:.2%}"


def test_the_classifier_is_trained_once_and_reloaded_with_the_same_sha256(tmp_path, digits, trainings):
    said = []
    first = features.load_classifier(digits_config(tmp_path), digits, CPU, said.append)
    second = features.load_classifier(digits_config(tmp_path), digits, CPU, said.append)
    assert len(trainings) == 1
    assert first.sha256 == second.sha256 and len(first.sha256) == 64
    assert all(torch.equal(a, b) for a, b in zip(first(digits.images[:5]), second(digits.images[:5])))
    assert not second.training and not any(parameter.requires_grad for parameter in second.parameters())
    assert len(list((tmp_path / ".cache").iterdir())) == 1
    # Both times the test accuracy is said, the same.
    assert said[-1] == said[-2] and "test accuracy" in said[-1] and f"{second.examined['accuracy']:.2%}" in said[-1]


@pytest.mark.parametrize("damage", ["truncated", "empty", "another file"])
def test_a_damaged_cache_is_built_again(tmp_path, digits, trainings, damage):
    first = features.load_classifier(digits_config(tmp_path), digits, CPU, quiet)
    (path,) = (tmp_path / ".cache").iterdir()
    whole = path.read_bytes()
    if damage == "another file":
        torch.save({"format": "another-1"}, path)
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    second = features.load_classifier(digits_config(tmp_path), digits, CPU, quiet)
    assert len(trainings) == 2
    assert second.sha256 == first.sha256
    assert features.load_classifier(digits_config(tmp_path), digits, CPU, quiet).sha256 == first.sha256
    assert len(trainings) == 2


@pytest.fixture
def ctrl_c():
    """Ctrl-C as it is in a terminal: what a script starts in the background inherits it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_the_classifier_is_trained_leaves_nothing_and_the_next_start_trains_it(
    tmp_path, digits, trainings, monkeypatch, ctrl_c
):
    few = Images(digits.images[:300], digits.labels[:300], digits.classes)
    with monkeypatch.context() as patch:
        patch.setattr(features.F, "cross_entropy", lambda *given: signal.raise_signal(signal.SIGINT))
        with pytest.raises(
            Stopped, match=r"SIGINT: the classifier of digits is not saved; .* trains it again"
        ) as stopped:
            features.load_classifier(digits_config(tmp_path), few, CPU, quiet)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    assert not (tmp_path / ".cache").exists()
    found = features.load_classifier(digits_config(tmp_path), few, CPU, quiet)
    other = features.load_classifier(digits_config(tmp_path / "undisturbed"), few, CPU, quiet)
    assert found.sha256 == other.sha256 and len(trainings) == 3


@pytest.mark.parametrize("changed", ["images", "labels"])
def test_other_training_data_get_another_classifier(tmp_path, digits, trainings, changed):
    features.load_classifier(digits_config(tmp_path), digits, CPU, quiet)
    other = digits._replace(**{changed: getattr(digits, changed).flip(0)})
    features.load_classifier(digits_config(tmp_path), other, CPU, quiet)
    assert len(trainings) == 2
    assert len(list((tmp_path / ".cache").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_said_and_does_without(tmp_path, digits, trainings):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    said = []
    network = features.load_classifier(digits_config(tmp_path), digits, CPU, said.append)
    assert network.name == "classifier"
    assert any("not cached" in text for text in said)


@pytest.mark.parametrize(("labels", "classes"), [([-1] * 4, ()), ([0] * 4, ("one",)), ([0, 1, -1, 0], ("a", "b"))])
def test_unlabelled_data_are_refused_for_the_classifier(tmp_path, labels, classes):
    config = Config(dataset="folder", data_dir=str(tmp_path), features="classifier", image_size=8)
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"needs labelled images of two classes or more.* use --features inception"):
        features.load_classifier(config, Images(images, torch.tensor(labels), classes), CPU, quiet)


# ---- Inception -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(inception_weights):
    config = Config(dataset="cifar10", inception_weights=str(inception_weights))
    return features.load_inception(config, CPU, quiet)


def test_inception_gives_the_features_of_torch_fidelity(inception, inception_weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    reference = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(inception_weights))
    images = random_images(2, 3, 32, 32)
    found, logits = inception(images)
    expected, expected_logits = reference(images)
    assert (found.shape, logits.shape) == ((2, 2048), (2, 1008))
    assert torch.equal(found, expected) and torch.equal(logits, expected_logits)
    assert (found[0] - found[1]).abs().max() > 1e-3  # features that tell images apart


def test_inception_names_itself_its_resizing_and_its_file(inception, inception_weights):
    assert inception.name == "inception-v3-compat"
    assert "299" in inception.resize
    assert inception.sha256 == hashlib.sha256(inception_weights.read_bytes()).hexdigest()


def test_weights_of_another_hash_are_used_with_a_warning(inception, inception_weights):
    said = []
    config = Config(dataset="cifar10", inception_weights=str(inception_weights))
    loaded = features.load_inception(config, CPU, said.append)
    assert loaded.sha256 == inception.sha256
    assert loaded.warning == inception.warning and said == [f"warning: {loaded.warning}"]
    assert f"not the published ones (SHA-256 {inception.sha256[:8]}..., not 6726825d...)" in loaded.warning


def test_the_published_weights_need_no_warning(inception_weights, monkeypatch):
    monkeypatch.setattr(inception_module, "file_sha256", lambda path: "6726825d" + 56 * "0")
    assert features.Inception(inception_weights).warning is None


def test_a_grey_image_has_the_features_of_the_same_image_in_colour(inception):
    grey = random_images(1, 1, 32, 32)
    assert torch.equal(inception(grey)[0], inception(grey.expand(-1, 3, -1, -1))[0])


@pytest.mark.parametrize(
    "write",
    [lambda path: torch.save({"weight": torch.zeros(3)}, path), lambda path: path.write_text("<html>404</html>")],
    ids=["other weights", "text"],
)
def test_a_file_of_anything_else_is_refused_in_the_place_of_the_weights(tmp_path, write):
    path = tmp_path / "weights.pth"
    write(path)
    with pytest.raises(UserError, match=f"{path} does not hold the weights of torch-fidelity's Inception"):
        features.Inception(path)


def test_weights_with_code_in_them_are_refused_and_the_code_does_not_run(tmp_path):
    path, proof = tmp_path / "weights.pth", tmp_path / "the code ran"

    class RunsCode:
        def __reduce__(self):
            return os.system, (f"touch '{proof}'",)

    torch.save({"weight": torch.zeros(3), "code": RunsCode()}, path)
    with pytest.raises(UserError, match=f"{path} does not hold the weights of torch-fidelity's Inception"):
        features.Inception(path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(RunsCode()))
    assert proof.exists()  # so the payload is a real one


def test_a_missing_weights_file_is_named(tmp_path):
    with pytest.raises(UserError, match=f"--inception_weights {tmp_path}/absent.pth: no such file"):
        features.inception_file(str(tmp_path / "absent.pth"))


def test_weights_that_cannot_be_downloaded_are_told_with_every_way_on(tmp_path, monkeypatch):
    def download(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(UserError) as error:
        features.inception_file(None)
    name = "weights-inception-2015-12-05-6726825d.pth"
    for part in (str(tmp_path), name, "https://", "by hand", "--inception_weights", "--features classifier"):
        assert part in str(error.value)


def test_weights_in_torchs_cache_are_taken_from_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir()
    path.touch()
    assert features.inception_file(None) == path


@pytest.mark.parametrize(
    ("dataset", "given", "chosen"),
    [
        *((dataset, "auto", "classifier") for dataset in ("digits", "mnist", "fashion_mnist")),
        *((dataset, "auto", "inception") for dataset in ("cifar10", "cifar100", "stl10", "folder")),
        ("digits", "inception", "inception"),
        ("cifar10", "classifier", "classifier"),
    ],
)
def test_the_extractor_is_the_classifier_for_digits_and_mnist_and_inception_elsewhere(dataset, given, chosen):
    assert features.extractor_name(Config(dataset=dataset, features=given)) == chosen


@pytest.mark.parametrize(("dataset", "words"), [("folder", "sort them into a folder for each class"), ("stl10", "use")])
def test_a_classifier_without_classes_is_refused_with_the_ways_out(dataset, words):
    flat = Images(random_images(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), ("",))
    with pytest.raises(UserError, match=rf"{dataset} lacks; {words}.* --features inception, or train without"):
        features.check_labels(Config(dataset=dataset), flat)
