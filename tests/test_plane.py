"""plane.py: the Dirac-GAN follows its recurrence exactly, modes are counted, and a film with its page is written."""

import pytest
import torch
from PIL import Image

import plane
from datasets.points import TARGETS
from utils.errors import UserError


@pytest.fixture
def three_frames(monkeypatch):
    monkeypatch.setattr(plane, "FRAMES", 3)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_the_dirac_gan_circles_without_a_penalty_and_converges_with_R1(three_frames, gamma):
    """With the Wasserstein loss a step is linear: psi -= h (theta + gamma psi), then theta += h psi."""
    h, penalty = 0.1, ["--regularizer", "r1", "--regularizer_weight", str(gamma)] if gamma else []
    words = ["--points", "dirac", "--loss", "wasserstein", "--d_norm", "none", "--lr_G", str(h), "--lr_D", str(h)]
    _, panels = plane.parse_args([*words, *penalty, "--total_steps", "200"])
    *_, last = plane.play(*panels.values(), "dirac")
    state = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    move = torch.tensor([[1 - h * h, h * (1 - h * gamma)], [-h, 1 - h * gamma]], dtype=torch.float64)
    for found in last.points:
        torch.testing.assert_close(found.double(), state, rtol=0, atol=1e-5)
        state = move @ state
    assert (last.points.norm(dim=1)[-1] < 0.001) if gamma else (last.points.norm(dim=1) > 0.94).all()


def test_modes_and_good_samples_are_counted_as_published():
    target = TARGETS["ring"]
    near = target.centres[[0, 0, 3]] + torch.tensor([2.9, 0.0]) * target.std
    assert target.judge(torch.cat([near, target.centres[:1] + 3.1 * target.std])) == (2, 0.75)
    modes, good = TARGETS["grid"].judge(TARGETS["grid"].sample(5000, torch.Generator().manual_seed(0)).flatten(1))
    assert modes == 25 and good == pytest.approx(1 - 2.718281828 ** (-4.5), abs=0.003)  # of a Gaussian in a plane


def test_a_film_its_last_frame_and_a_page_are_written_and_a_seed_is_repeated(three_frames, tmp_path, capsys):
    words = ["--out", str(tmp_path), "--total_steps", "4", "--d_norm", "spectral", "spectral,batch"]
    plane.main(words)
    said = capsys.readouterr().out
    assert "spectral: step 4: " in said and "spectral batch: step 4: " in said and "of 8 modes" in said
    with Image.open(tmp_path / "ring.gif") as film, Image.open(tmp_path / "ring.png") as last:
        assert film.n_frames == 3 and film.size == last.size
    assert "spectral batch: step 4: " in (page := (tmp_path / "ring.html").read_text(encoding="utf-8"))
    assert "data:image/gif;base64," in page and "Steepest slope of D" in page
    before = (tmp_path / "ring.gif").read_bytes()
    plane.main(words)
    assert (tmp_path / "ring.gif").read_bytes() == before


def test_senseless_pairs_are_refused_as_by_main():
    with pytest.raises(UserError, match="r1 makes no sense with d_norm batch"):
        plane.parse_args(["--d_norm", "batch", "--regularizer", "r1"])
    with pytest.raises(UserError, match="did you mean hinge"):
        plane.parse_args(["--loss", "hing"])
