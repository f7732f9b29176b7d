"""The grid of a study: what it holds, what its file and its flags may say, and whose folder it is."""

import pytest
import torch
import yaml
from helpers import ROOT, SMALL, random_images

import train
from datasets import Images
from models import CONDITIONAL, MODELS
from settings.layers import resolve
from study import grid
from study.grid import load_study
from study.methods import METHODS, SETTINGS
from training.state import State
from utils.errors import UserError

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


def test_the_settings_are_those_of_the_papers_table_1():
    rows = [(s["lr_G"], s["lr_D"], *s["betas"], s["n_dis"]) for s in SETTINGS.values()]
    assert rows == [
        (1e-4, 1e-4, 0.5, 0.9, 5),
        (1e-4, 1e-4, 0.5, 0.999, 1),
        (2e-4, 2e-4, 0.5, 0.999, 1),
        (1e-3, 1e-3, 0.5, 0.9, 5),
        (1e-3, 1e-3, 0.5, 0.999, 5),
        (1e-3, 1e-3, 0.9, 0.999, 5),
    ]
    assert "".join(SETTINGS) == "ABCDEF"


@pytest.mark.parametrize(
    ("model", "conditional"), [*((model, "none") for model in MODELS), *(("mlp", name) for name in [*CONDITIONAL][1:])]
)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_every_model(model, conditional, method):
    flags = {"model": model, "conditional": conditional, "dataset": "digits", **SMALL, "n_dis": 1}
    if model == "r3gan" and {"batch", "layer", "weight"} & {*METHODS[method].settings["d_norm"]}:
        with pytest.raises(UserError, match="is not for r3gan"):
            resolve(flags | METHODS[method].settings)
        return
    config, _ = resolve(flags | METHODS[method].settings)
    images = Images(random_images(16, 1, 8, 8), torch.arange(16) % 2, ("even", "odd"))
    state = State(config, images, torch.device("cpu"))
    before = [p.detach().clone() for p in state.D.parameters()]
    train.step(state, config)
    assert state.history().isfinite().all()
    assert any(not torch.equal(a, b) for a, b in zip(before, state.D.parameters()))
    if method == "weight_clipping":
        assert all(p.abs().max() <= 0.01 for p in state.D.parameters())


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_s_quick_part_counts_for_all_of_it(path):
    whole, quick = load_study(path), load_study(path, quick=True)
    few = (4 * 3 * 3, 4)
    counts = {"modes": (9 * 2 * 3, 3), "few_images": few, "few_images_fashion_mnist": few}
    counts |= dict.fromkeys(("fashion_mnist", "mnist"), (8 * 3 * 3, 2)) | {"r1_cheaper": (5 * 2 * 3, 2)}
    assert (len({run.run_dir for run in whole.runs()}), len(quick.runs())) == counts.get(path.stem, (11 * 6 * 3, 15))
    if path.stem not in counts:
        assert whole.methods == tuple(METHODS)[:11]
    names = {run.name: run.config for run in whole.runs()}
    assert all(names[run.name] == run.config for run in quick.runs())  # so that they count for the whole


def test_overrides_and_choices_go_before_the_file(write):
    found = load_study(write(), overrides={"total_steps": 9}, seeds=[5], settings=["F"])
    assert {(run.config.total_steps, run.seed, run.setting) for run in found.runs()} == {(9, 5, "F")}


def test_grids_are_joined_in_the_order_of_the_table_and_cut_to_what_there_is(write):
    one, other = load_study(write()), load_study(write(), methods=["batch"], settings=["B"], seeds=[7])
    joined = one.with_all_of(other)
    assert (joined.methods, joined.settings, joined.seeds) == (
        ("none", "batch", "spectral"),
        ("A", "B", "C"),
        (0, 1, 7),
    )
    cut = joined.only([joined.run("spectral", "B", 7), joined.run("none", "B", 1)])
    assert (cut.methods, cut.settings, cut.seeds) == (("none", "spectral"), ("B",), (1, 7))


def test_a_study_can_have_settings_of_its_own(write):
    own = {"all": None, "tenth": {"batch_size": 8, "lr_G": 1.0e-3}}
    study = load_study(write(settings=own, quick={"settings": ["tenth"]}, also={"lr_D": 3.0e-4}))
    assert (study.settings, study.table) == (("all", "tenth"), {"all": {}, "tenth": {"batch_size": 8, "lr_G": 1e-3}})
    configs = {run.setting: run.config for run in study.runs()}
    assert (configs["all"].lr_G, configs["tenth"].lr_G, configs["tenth"].lr_D) == (5e-4, 1e-3, 3e-4)
    assert configs["tenth"].batch_size == 8 and study.runs()[0].name == "none_all_seed0"
    assert load_study(write(settings=own), quick=False, settings=["tenth"]).settings == ("tenth",)


def test_a_method_without_a_regularizer_has_none_where_the_preset_has_one(write):
    study = load_study(write(also={"model": "r3gan"}, methods=["none", "spectral", "r1"]))
    configs = {run.name: run.config for run in study.runs()}
    assert {run.method: run.config.regularizer for run in study.runs()} == {
        "none": ("none",),
        "spectral": ("none",),
        "r1": ("r1",),
    }
    assert configs["none_A_seed0"].gamma_cosine is None and configs["none_A_seed0"].beta2_cosine is None
    assert configs["none_A_seed0"].betas == (0.5, 0.9)


def test_a_study_can_weigh_its_regularizers(write):
    study = load_study(write(weights={"r1": 0.5}, methods=["none", "r1", "wgan_gp"]))
    found = {run.method: run.config.regularizer_weight for run in study.runs()}
    assert found == {"none": None, "r1": (0.5,), "wgan_gp": None}


def test_a_study_can_name_the_fid_that_seconds_are_counted_to(write):
    assert load_study(write()).target_fid is None
    assert load_study(write(target_fid=20)).target_fid == 20


def test_a_folder_belongs_to_the_study_that_took_it_first(write, tmp_path):
    first = load_study(write(), tmp_path / "runs")
    first.folder.mkdir()
    grid.claim(first)
    grid.claim(load_study(write(also={"total_steps": 9, "log_every": 3}), tmp_path / "runs"))
    path = first.folder / "study.yaml"
    for damage in ("", "- 1", "{"):
        path.write_text(damage, encoding="utf-8")
        grid.claim(first, write=False)
        assert path.read_text(encoding="utf-8") == damage
        grid.claim(first)
        assert yaml.safe_load(path.read_text(encoding="utf-8")) == first.base
    with pytest.raises(UserError, match=r"belongs to another study: its z_dim is 8, but this one's is 4.*--out"):
        grid.claim(load_study(write(also={"z_dim": 4}), tmp_path / "runs"))


# ---- What is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["none", "spectrall"]}, "unknown method 'spectrall'; did you mean spectral?"),
        ({"settings": ["G"]}, "unknown setting 'G'; choices: A, B, C, D, E, F"),
        ({"metrics": ["fidd"]}, "unknown metric 'fidd'; did you mean fid?"),
        ({"seeds": [-1]}, "seed must be at least 0, not -1"),
        ({"seeds": [0, 0]}, "seeds has an entry twice"),
        ({"seeds": [True]}, "seed must be a whole number, not True"),
        ({"methods": "spectral"}, "methods must be a list"),
        ({"methods": []}, "methods must be a list with one entry or more"),
        ({"methods": [1]}, "unknown method 1; did you mean r1?"),
        ({"methods": None}, "methods must be a list"),
        ({"method": ["none"]}, "unknown key 'method'; did you mean methods?"),
        ({"quick": {"base": {}}}, "unknown key of quick 'base'"),
        ({"target_fid": 0}, "target_fid must be a number above 0, not 0"),
        ({"target_fid": True}, "target_fid must be a number above 0, not True"),
        ({"weights": [1]}, "weights must be lines such as `r1: 1.0`"),
        ({"weights": {"r3": 1.0}}, "unknown regularizer of a method 'r3'; choices: approximate_r1, gradient_penalty"),
        ({"weights": {"none": 1.0}}, "unknown regularizer of a method 'none'"),
        ({"weights": {"r1": [1, 2]}}, "regularizer_weight must be a number, not [1, 2]"),
        ({"weights": {"r1": -1}}, "regularizer_weight must be more than 0"),
        ({"settings": {"a": {"d_norm": "none"}}}, "setting a cannot set d_norm, which the study decides"),
        ({"settings": {"a": {"lr_g": 0.1}}}, "unknown setting 'lr_g'; did you mean lr_G?"),
        ({"settings": {"a/b": {}}}, "the name of a setting may have letters, digits and hyphens, not 'a/b'"),
        ({"settings": {"a": [3]}}, "settings are `name: value` lines, not a list"),
        ({"settings": {}}, "settings must be a list with one entry or more"),
        ({"also": {"n_dis": 3}}, "base cannot set n_dis, which the study decides"),
        ({"also": {"num_samples": None}}, "base has no value for num_samples; leave it out"),
        ({"also": {"modle": "mlp"}}, "unknown setting 'modle'; did you mean model?"),
        ({"also": {"batch_size": -1}}, "batch_size must be at least 2"),
        ({"also": {"eval_every": 0}}, "base needs eval_every and audit_every"),
    ],
)
def test_a_mistaken_study_is_answered_in_words(write, changes, words):
    with pytest.raises(UserError) as error:
        load_study(write(**changes), quick="quick" in changes)
    assert words in str(error.value) and "small.yaml" in str(error.value)


def test_what_makes_no_sense_together_names_method_and_setting(write):
    with pytest.raises(UserError, match=r"method spectral, setting A: .*arch_variant paper is for --model dcgan"):
        load_study(write(also={"arch_variant": "paper"})).run("spectral", "A", 0)


def test_a_study_that_is_no_list_of_keys_or_has_no_quick_part_is_refused(tmp_path, write):
    path = tmp_path / "text.yaml"
    path.write_text("spectral", encoding="utf-8")
    with pytest.raises(UserError, match="a study has the keys base, methods"):
        load_study(path)
    with pytest.raises(UserError, match="it has no key quick: leave out --quick"):
        load_study(write(quick=None), quick=True)


def test_the_usual_study_is_found_from_another_folder_and_seeds_may_be_a_range(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("compare.py", "--print_commands", "--methods", "spectral", "--settings", "C", "--seeds", "0-2", "5")
    runs = [line.split()[-1] for line in done.stdout.splitlines()]
    assert runs == [f"spectral_C_seed{seed}" for seed in (0, 1, 2, 5)]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--methods", "spectal"], "unknown method 'spectal'; did you mean spectral?"),
        (["--settings", "G"], "unknown setting 'G'"),
        (["--metrics", "is"], "unknown metric 'is'"),
        (["--config", "configs/studies/digit.yaml"], "did you mean configs/studies/digits.yaml?"),
        (["--jobs", "0"], "--jobs 0: at least 1"),
        (["--seeds", "2-0"], "'2-0' is neither a number such as 7 nor a range such as 0-63"),
        (["--report", "--print_commands"], "not allowed with"),
        (["--out", "README.md"], "README.md"),
        (["--num_samples", "5"], "num_samples must be at least 100"),
        (["--report", "--out", "{tmp}"], "holds no run of this study yet"),
        (["--report", "--out", "{tmp}/absent"], "holds no run of this study yet"),
        (["--run", "spectral"], "digits has no run spectral: they are named METHOD_SETTING_seedK"),
    ],
)
def test_what_compare_cannot_do_is_answered_in_words(call, tmp_path, flags, words):
    done = call("compare.py", *(flag.replace("{tmp}", str(tmp_path)) for flag in flags))
    assert done.returncode == 2 and words in done.stderr
    assert "Traceback" not in done.stderr
