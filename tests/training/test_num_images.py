"""--num_images: what is trained on, what it is scored against, and what is refused."""

import pytest
import torch
from helpers import go_on, start
from PIL import Image

import evaluate
import train
from datasets import Images, first_of, load_split, trained_on
from datasets.images import Origin
from evaluation.evaluator import Evaluator
from evaluation.inputs.sampling import Given
from evaluation.results import kept
from settings.config import Config
from training.checkpoints import checkpoint
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("no_pictures")
CPU = torch.device("cpu")


def test_fewer_images_are_the_first_of_more_with_their_labels():
    images = Images(torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1), torch.arange(40), ("a",) * 40)
    few, more = trained_on(images, 5), trained_on(images, 20)
    assert torch.equal(few.images, more.images[:5]) and torch.equal(few.images.flatten().long(), few.labels)
    assert sorted(trained_on(images, 40).labels.tolist()) == list(range(40)) and trained_on(images, None) is images
    assert few.sha256() != more.sha256() != images.sha256()
    decoded = images._replace(origin=Origin("of all", {"largest": [1, 1]}, {}, ("a note",)))
    assert trained_on(decoded, 5).sha256() == few.sha256() and trained_on(decoded, 5).origin.notes == ("a note",)
    with pytest.raises(UserError, match="num_images 41 is larger than the number of training images, 40"):
        first_of(40, 41)


def test_a_run_on_few_images_sees_no_other_and_resumes_on_the_same_alone(tmp_path, monkeypatch):
    seen, plain = set(), train.to_float

    def looked(images, *args):
        seen.update(bytes(image.flatten().tolist()) for image in images)
        return plain(images, *args)

    monkeypatch.setattr(train, "to_float", looked)
    train.train(start(tmp_path, num_images=10, batch_size=8))
    digits = load_split(Config(image_size=8, channels=1)).images
    assert seen == {bytes(image.flatten().tolist()) for image in digits[first_of(len(digits), 10)]}
    assert "data        digits: 10 images of 8x8" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="num_images"):
        go_on(tmp_path, num_images=11)


def test_more_than_there_are_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"num_images 1,499 is larger than the number of training images, 1,498"):
        train.train(start(tmp_path, num_images=1499))
    with pytest.raises(UserError, match=r"each class needs at least 2 images, but .*: raise --num_images"):
        train.train(start(tmp_path, num_images=20, conditional="projection"))
    assert not (tmp_path / "run").exists()


def test_a_folder_in_the_data_s_place_is_compared_with_as_a_whole(tmp_path, data_dir):
    path = train.train(start(tmp_path, total_steps=1, num_images=200, data_dir=data_dir))
    config = checkpoint.load_trained(path).config
    digits = load_split(config)
    (tmp_path / "other").mkdir()
    for i, image in enumerate(digits.images[:110]):
        Image.fromarray(image[0].numpy()).save(tmp_path / "other" / f"{i:03d}.png")
    evaluator = Evaluator(config, digits, CPU, reference=str(tmp_path / "other"))
    facts = {"step": 0, "ema": None, "seed": 0, "num_images": 200}
    (found,), _ = evaluator.evaluate(Given(digits.images[:110]), facts, ("modern",), 110)
    assert found["memorisation"]["distance_of_samples"] < 1e-3


def test_scores_are_against_all_images_and_copies_are_of_those_that_were_trained_on(tmp_path, data_dir):
    flags = {"num_images": 120, "data_dir": data_dir, "num_samples": 100}
    path = train.train(start(tmp_path, total_steps=2, **flags))
    config = checkpoint.load_trained(path).config
    evaluator = Evaluator(config, load_split(config), CPU)
    assert evaluate.doubts(evaluator, checkpoint.load_trained(path)) == []
    other = Evaluator(config, trained_on(load_split(config), 1000), CPU)
    assert evaluate.doubts(other, checkpoint.load_trained(path)) != []
    evaluate.score([path], evaluator)
    (result,) = kept.read(tmp_path / "run" / "evaluation")
    assert (result["protocol"]["num_real"], result["protocol"]["num_images"]) == (1498, 120)
    # Copies of the images that were trained on are at distance 0; copies of others are not.
    images = load_split(config).images
    chosen = first_of(len(images), 120)
    rest = torch.tensor([i for i in range(len(images)) if i not in set(chosen.tolist())])
    facts = {"step": 0, "ema": None, "seed": 0, "num_images": 120}
    for taken, copies in ((images[chosen], True), (images[rest[:120]], False)):
        (found,), _ = evaluator.evaluate(Given(taken), facts, ("modern",), 100)
        assert (found["memorisation"]["distance_of_samples"] < 1e-3) == copies
