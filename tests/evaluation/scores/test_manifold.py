"""Neighbourhoods: torch-fidelity's own precision and recall, ties included, and Naeem's density and coverage."""

import math

import pytest
import torch
from torch_fidelity import metric_prc

from evaluation.scores import manifold


def gaussian(count, dim, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def scores(samples, real):
    return manifold.scores(samples, real, manifold.radii(samples, ""), manifold.radii(real, ""))


def ours(samples, real):
    found = scores(samples, real)
    return {name: found[name] for name in ("precision", "recall")}


def theirs(samples, real, **options):
    found = metric_prc.prc_features_to_metric(samples, real, verbose=False, **{"save_cpu_ram": True, **options})
    return {name: found[name] for name in ("precision", "recall")}


def whole_numbers(count, dim, seed):
    """Features with many equal distances, all of them exact."""
    return (1.5 * gaussian(count, dim, seed)).round()


def repeated(count, dim, seed):
    """Features of which each occurs about five times."""
    chosen = torch.randint(count // 5, (count,), generator=torch.Generator().manual_seed(seed))
    return gaussian(count // 5, dim)[chosen]  # the same ones for every seed


@pytest.mark.parametrize("make", [gaussian, whole_numbers, repeated])
@pytest.mark.parametrize("counts", [(300, 300), (700, 130), (90, 1100), (12, 20)])
@pytest.mark.parametrize("dim", [2, 128])
def test_precision_and_recall_are_torch_fidelitys(make, counts, dim):
    samples, real = make(counts[0], dim, seed=1), make(counts[1], dim, seed=2)
    assert ours(samples, real) == theirs(samples, real)


@pytest.mark.parametrize("make", [gaussian, whole_numbers, repeated])
def test_they_are_in_several_blocks_too(make, monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", 100)
    samples, real = make(330, 8, seed=1), make(570, 8, seed=2)
    assert ours(samples, real) == theirs(samples, real, prc_batch_size=100)


def test_exact_distances_give_the_same_in_any_blocks_and_in_both_ways_of_torch_fidelity(monkeypatch):
    samples, real = whole_numbers(200, 3, seed=1), whole_numbers(300, 3, seed=2)
    expected = ours(samples, real)
    assert 0 < expected["precision"] < 1 and 0 < expected["recall"] < 1
    assert theirs(samples, real, save_cpu_ram=False) == expected
    monkeypatch.setattr(manifold, "BLOCK", 7)
    assert ours(samples, real) == expected


def test_a_radius_is_the_distance_to_the_kth_other_image():
    line = torch.tensor([[0.0], [1], [3], [6], [10], [15], [21]])
    expected = [[0, 1, 3, 6, 10, 15], [0, 1, 2, 5, 9, 14], [0, 2, 3, 3, 7, 12], [0, 3, 4, 5, 6, 9]]
    assert manifold.radii(line, "")[:4].tolist() == expected
    twins = torch.tensor([[0.0], [0], [0], [4], [9]])
    assert manifold.radii(twins, "")[0].tolist() == [0, 0, 0, 4, 9]  # of five images, to the fourth other one


def test_an_image_on_the_border_of_a_ball_is_held():
    centres, reach = torch.tensor([[0.0], [10], [4]]), torch.tensor([2.0, 1, 3])
    queries = torch.tensor([[2.0], [1], [-2], [11], [11.5], [7]])
    assert manifold.held(queries, centres, reach, "").tolist() == [2, 2, 1, 1, 0, 1]


def test_no_more_than_a_block_of_distances_is_made_at_once(monkeypatch):
    shapes, cdist = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda x, y: shapes.append((len(x), len(y))) or cdist(x, y))
    monkeypatch.setattr(manifold, "BLOCK", 64)
    ours(gaussian(200, 4), gaussian(150, 4, seed=1))
    assert max(rows for rows, _ in shapes) == max(columns for _, columns in shapes) == 64
    assert len(shapes) == 4 * 4 + 3 * 3 + 2 * 4 * 3


# ---- Density and coverage ------------------------------------------------------------------------------------------


def plainly(samples, real, k):
    """Density and coverage by the definition (Naeem et al. 2020, equations 3 and 5), image by image in float64."""
    samples, real = samples.double().tolist(), real.double().tolist()
    reach = [sorted(math.dist(x, other) for other in real)[k] for x in real]
    within = [[math.dist(y, x) < r for x, r in zip(real, reach)] for y in samples]
    density = sum(map(sum, within)) / (k * len(samples))
    return {"density": density, "coverage": sum(map(any, zip(*within))) / len(real)}


@pytest.mark.parametrize("make", [gaussian, whole_numbers])
@pytest.mark.parametrize("counts", [(60, 60), (90, 40), (12, 70)])  # of samples and real images
@pytest.mark.parametrize("block", [10_000, 16])
def test_density_and_coverage_are_those_of_the_definition(make, counts, block, monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", block)
    samples, real = make(counts[0], 3, seed=1), make(counts[1], 3, seed=2)
    found, expected = scores(samples, real), plainly(samples, real, 5)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert expected["coverage"] > 0 and expected["density"] > 0


def test_density_and_coverage_of_a_line_by_hand():
    real = torch.arange(10.0)[:, None]  # to the fifth neighbour: 5 from the ends, then 4, and 3 in the middle
    assert manifold.radii(real, "")[:, 5].tolist() == [5, 4, 3, 3, 3, 3, 3, 3, 4, 5]
    found = scores(torch.full((12, 1), -2.5), real)  # within 5 of image 0 and 4 of image 1, and of no other
    assert (found["density"], found["coverage"]) == (pytest.approx(2 / 5), 0.2)
    found = scores(
        torch.tensor([[-5.0], [0.5]]).repeat(6, 1), real
    )  # the first lies just on a border, which is outside
    assert found["density"] == pytest.approx(4 / 5 / 2) and found["coverage"] == pytest.approx(0.4)


def test_real_images_themselves_have_a_density_and_coverage_of_1_and_distant_samples_0():
    real = gaussian(300, 8)
    found = scores(real.clone(), real)
    assert found["coverage"] == 1 and found["density"] == pytest.approx(1, abs=0.01)
    assert [scores(real + 100, real)[name] for name in ("density", "coverage")] == [0, 0]
    assert scores(0.01 * gaussian(300, 8, seed=3), gaussian(300, 8, seed=4))["density"] > 1  # all in the middle


def test_one_mode_of_two_is_dense_and_covers_half():
    first, second = gaussian(100, 2), gaussian(100, 2, seed=1) + 100
    found = scores(first, torch.cat([first, second]))
    assert found["coverage"] == 0.5 and found["density"] == pytest.approx(1, abs=0.05)  # borders are within rounding
