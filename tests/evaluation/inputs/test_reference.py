"""The reference: made once, kept under all that it depends on, and never used when anything of that differs."""

import dataclasses

import pytest
import torch
from helpers import Pixels, random_images

from datasets.images import Images
from evaluation.inputs import reference
from evaluation.scores import manifold, metrics
from settings.config import Config

CPU = torch.device("cpu")


class Counted(Pixels):
    looks = 0

    def forward(self, images):
        Counted.looks += 1
        return super().forward(images)


def split(count=130, seed=0):
    return Images(random_images(count, 1, 2, 2, seed=seed), torch.zeros(count), ())


@pytest.fixture
def load(tmp_path):
    """Loads a reference and returns it with whether it was made anew."""

    def load(images=None, name="train", extractor=None, **settings):
        config = dataclasses.replace(Config(data_dir=str(tmp_path)), **settings)
        before = Counted.looks
        found = reference.load_reference(config, name, images or split(), extractor or Counted(), CPU, said.append)
        return found, Counted.looks > before

    said = []
    load.said = said
    return load


def cache(tmp_path):
    (path,) = (tmp_path / ".cache").iterdir()
    return path


def test_a_reference_is_the_features_and_their_statistics_the_second_time_from_its_cache(load):
    made, anew = load()
    assert anew
    assert torch.equal(made.features, split().images.flatten(1).float() / 255)
    again, anew = load()
    assert not anew
    assert torch.equal(again.features, made.features)
    expected = metrics.fid_statistics(made.features)
    for found in (made, again):
        assert all((found.statistics[name] == expected[name]).all() for name in ("mu", "sigma"))
        assert found.statistics["mu"].dtype == expected["mu"].dtype
    assert metrics.fid(made.features, made) == metrics.fid(made.features, again)


def other_weights():
    extractor = Counted()
    extractor.sha256 = 64 * "1"
    return extractor


@pytest.mark.parametrize(
    "other",
    [
        {"images": split(seed=1)},
        {"images": split(count=129)},
        {"name": "test"},
        {"extractor": other_weights()},
        {"dataset": "mnist"},
    ],
    ids=["pixels", "count", "split", "weights", "data set"],
)
def test_anything_else_has_a_reference_of_its_own(load, tmp_path, other):
    load()
    assert load(**other)[1]
    assert not load()[1] and not load(**other)[1]
    assert len(list((tmp_path / ".cache").iterdir())) == 2


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "text", "a tensor", "another key", "a changed feature", "a list"]
)
def test_a_cache_that_is_damaged_or_of_another_key_is_made_anew_and_never_used(load, tmp_path, damage):
    made, _ = load()
    path = cache(tmp_path)
    whole, content = path.read_bytes(), torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_text("<html>404</html>")
    elif damage == "a tensor":
        torch.save(torch.zeros(3), path)
    elif damage == "another key":
        content["key"]["count"] += 1
        torch.save(content, path)
    elif damage == "a changed feature":
        content["value"]["features"][5, 1] += 0.25
        torch.save(content, path)
    elif damage == "a list":
        content["value"]["features"] = content["value"]["features"].tolist()
        torch.save(content, path)
    found, anew = load()
    assert anew
    assert torch.equal(found.features, made.features)
    assert not load()[1]  # and the good one was kept


def test_a_cache_that_cannot_be_written_is_said_and_does_without(load, tmp_path):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    found, _ = load()
    assert len(found.features) == 130
    assert len(load.said) == 1 and "not cached for the next time" in load.said[0]


# ---- What follows from a reference -----------------------------------------------------------------------------------


@pytest.fixture
def computed(monkeypatch):
    """How often radii were computed."""
    calls, radii = [], manifold.radii
    monkeypatch.setattr(manifold, "radii", lambda *parts: calls.append(1) or radii(*parts))
    return calls


def test_radii_are_made_when_they_are_asked_for_and_kept_beside_the_reference(load, tmp_path, computed):
    made, _ = load()
    assert len(list((tmp_path / ".cache").iterdir())) == 1 and not computed  # as an old cache is, without them
    radii = manifold.radii_of(made)
    assert torch.equal(radii, manifold.radii(made.features, "")) and manifold.radii_of(made) is radii
    del computed[:]
    again, anew = load()
    assert torch.equal(manifold.radii_of(again), radii)
    assert not anew and not computed
    other, _ = load(split(seed=1))
    assert len(computed) == 0 and not torch.equal(manifold.radii_of(other), radii)


@pytest.mark.parametrize("damage", ["truncated", "a changed radius", "another key"])
def test_kept_radii_that_are_damaged_or_of_another_key_are_made_anew(load, tmp_path, computed, damage):
    radii = manifold.radii_of(load()[0])
    (path,) = (tmp_path / ".cache").glob("*_radii_*")
    content = torch.load(path, weights_only=True)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    else:
        if damage == "a changed radius":
            content["value"][3, 2] += 0.125
        else:
            content["key"]["neighbours"] = 4
        torch.save(content, path)
    del computed[:]
    assert torch.equal(manifold.radii_of(load()[0]), radii) and len(computed) == 1
    assert torch.equal(manifold.radii_of(load()[0]), radii) and len(computed) == 1  # and the good ones were kept


def test_radii_that_cannot_be_kept_are_said_and_computed_again(load, tmp_path):
    (tmp_path / ".cache").write_text("a file where the folder should be")
    assert len(manifold.radii_of(load()[0])) == 130
    assert "the distances between real images are not cached for the next time" in load.said[-1]


def test_a_root_of_the_covariance_leaves_out_what_does_not_vary():
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    features = torch.cat([features, features[:, :1] + features[:, 1:2], torch.full((50, 1), 3.0)], dim=1)
    found = reference.Reference(features, reference.fid_statistics(features))
    assert found.root.shape == (6, 4)
    assert found.root @ found.root.T == pytest.approx(found.statistics["sigma"], abs=1e-6)
