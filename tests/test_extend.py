"""docs/extend.md: its example is run as it stands there, and what it says of the code is so."""

import json
import re
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, start

import train
from losses import LOSSES, accuracy, adversarial
from models import MODELS, mlp, normalization
from settings import config
from settings.command_line import parse_args
from training.checkpoints import checkpoint
from utils.errors import UserError

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))  # {file: what is to be written into it}

NEW_FILE = "evaluation/scores/means.py"


@pytest.fixture
def without(monkeypatch):
    """The code without the page's loss, which a user may have added already."""
    there = config.FIELDS["loss"].metadata
    names = tuple(name for name in there["choices"] if name != "pearson")
    monkeypatch.setattr(config.FIELDS["loss"], "metadata", {**there, "choices": names})
    for table in (LOSSES, adversarial.BOUNDARIES):
        monkeypatch.delitem(table, "pearson", raising=False)


@pytest.fixture
def pearson(without, monkeypatch):
    """The page's loss, where its two blocks put it."""
    monkeypatch.setattr(adversarial, "BOUNDARIES", adversarial.BOUNDARIES.copy())
    file = {**vars(adversarial)}
    before = LOSSES.copy()
    exec(BLOCKS["losses/adversarial.py"], file)
    line = {"basic": config.basic}
    exec(BLOCKS["settings/config.py"], line)
    field, there = config.FIELDS["loss"], config.FIELDS["loss"].metadata
    (_, *new), default = line["loss"].metadata["choices"], line["loss"].default
    assert [*before, *new] == [*LOSSES] and (default, line["loss"].metadata["help"]) == (field.default, there["help"])
    monkeypatch.setattr(field, "metadata", {**there, "choices": (*there["choices"], *new)})
    yield LOSSES["pearson"]
    LOSSES.clear()
    LOSSES.update(before)


def test_the_pages_loss_trains_and_has_its_values_by_hand(pearson, tmp_path, no_pictures):
    d_loss, g_loss = pearson
    real, fake = torch.tensor([[1.0], [-2.0]]), torch.tensor([[0.5], [3.0]])
    assert d_loss(real, fake).item() == pytest.approx(((0 + 9) / 2 + (2.25 + 16) / 2) / 2)
    assert g_loss(fake).item() == pytest.approx((0.25 + 9) / 2 / 2)
    assert accuracy("pearson", torch.tensor([[0.1]]), torch.tensor([[-0.1]])).item() == 1
    flags, _ = parse_args(None, ["--loss", "pearson", "--total_steps", "2"])
    kept = checkpoint.read(train.train(start(tmp_path, **flags)))
    assert kept["step"] == 2 and kept["config"]["loss"] == "pearson"


def test_without_its_second_block_the_flag_refuses_the_loss(without):
    with pytest.raises(UserError, match=r"--loss must be one of bce, .*, not 'pearson'"):
        parse_args(None, ["--loss", "pearson"])


def test_the_pages_score_and_method_are_shown_wherever_scores_and_methods_are():
    """In a process of its own, since what shows scores asks the registry when it is imported."""
    code = f"""
import sys, types, torch
from evaluation.scores import registry
from evaluation.scores.registry import Score
new, = {BLOCKS["evaluation/scores/registry.py"]}
registry.SCORES[new.name] = new
means = sys.modules["evaluation.scores.means"] = types.ModuleType("means")
means.__package__ = "evaluation.scores"
exec({BLOCKS[NEW_FILE]!r}, vars(means))
sys.path.append("tests")
from evaluation_results import result
from evaluation.inputs.reference import Reference, fid_statistics
from evaluation.results import plots, report, table
from evaluation.scores.metrics import against
from study import methods
exec({BLOCKS["study/methods.py"]!r}, vars(methods))
from study import drawing, tables
from study.grid import GRID
from training.reporting import sections
real = torch.rand(20, 4)
found = result(400, 3.0) | against(real + 2, Reference(real, fid_statistics(real)), left_out=["fid", "kid"])
assert abs(found["mean_distance"] - 4) < 1e-5
assert "distance of means 4.00" in report.summary([found])
assert "distance of means 4.00" in report.real_images(found)
assert {{"mean_distance", "held_out_mean_distance"}} < set(report.COLUMNS)
assert "mean_distance" in report.flat(found) and "mean_distance" in table.COLUMNS and new in plots.DRAWN
header, rows = sections.scores([found])["table"]
assert "4.00" in rows[0] and "distance of means ↓" in header and "distance of means (less is better)" in sections.PANELS
assert "mean_distance" in GRID["metrics"] and "mean_distance_at_best" in tables.RESULTS
assert "pearson" in GRID["methods"] and drawing.line_of("pearson")["color"] == "black"
assert drawing.name_of("pearson") == "Pearson" and methods.METHODS["pearson"].settings["loss"] == "pearson"
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class OwnD(torch.nn.Module):
    """A discriminator that BOUNDS does not know."""

    def __init__(self, shape):
        super().__init__()
        self.num_classes, self.layer = 0, torch.nn.Linear(shape.channels * shape.image_size**2, 1)

    def forward(self, images):
        return self.layer(images.flatten(1))


def test_a_network_of_ones_own_is_audited_while_it_trains_and_told_what_bounds_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "own", (mlp.Generator, OwnD))
    field = config.FIELDS["model"]
    monkeypatch.setattr(field, "metadata", {**field.metadata, "choices": (*field.metadata["choices"], "own")})
    flags = {"model": "own", "total_steps": 2, "audit_every": 2}
    run_dir = train.train(start(tmp_path, **flags)).parent.parent
    found = json.loads((run_dir / "audits" / "step_000002.json").read_text())
    assert [layer["name"] for layer in found["layers"]] == ["layer"] and found["lower_bound"] > 0
    assert found["no_bound"] == f"BOUNDS in evaluation/discriminator/bounds.py has no entry for {__name__}.OwnD"
    assert "slope has no known bound: BOUNDS" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_0-9]+\.py)`", PAGE)) | {*BLOCKS} - {NEW_FILE}
    assert len(named) > 10 and all((ROOT / name).is_file() for name in named)
    for name in set(re.findall(r"`([A-Z]{4,}(?:_[A-Z]+)*)`", PAGE)):
        assert any(f"\n{name}" in path.read_text(encoding="utf-8") for path in ROOT.glob("[a-z]*/**/*.py")), name


def test_a_third_normalization_of_a_kind_excludes_each_of_the_others(monkeypatch):
    monkeypatch.setitem(normalization.FEATURE_NORMS, "instance", torch.nn.InstanceNorm2d)
    monkeypatch.setattr(normalization, "D_NORMS", (*normalization.D_NORMS, "instance"))
    assert normalization.check_d_norm(("spectral", "instance")) == ("spectral", "instance")
    for pair in (("batch", "instance"), ("instance", "layer")):
        with pytest.raises(ValueError, match="exclude each other: both normalise the features"):
            normalization.check_d_norm(pair)
