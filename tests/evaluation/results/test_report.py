"""The report: what a person reads, what a program reads, and that no score stands without its protocol."""

import csv
import json

import pytest
from evaluation_results import result

from evaluation.results import report

STEPS = [result(400, 9.0), result(800, 3.0), result(1200, 4.0)]


def test_the_summary_names_scores_and_protocol():
    text = report.summary([result(1200, 4.0)])
    assert text.splitlines() == [
        "IS 9.20 +- 0.12, FID 4.00, KID 0.5000 +- 0.2500, precision 0.75, recall 0.50",
        "    modern: 5,000 samples, 50,000 train images of digits, features of the classifier (abcdef01); "
        "samples drawn from the EMA of G at step 1,200",
        "    short of the full protocol modern: 5,000 samples, not 50,000",
        "  median distance to the nearest of the training images: samples 4.5, test images 3.25",
    ]


def test_the_summary_of_several_protocols_says_once_what_they_share():
    first, second = result(1200, 4.0, warnings=["it copies"]), result(1200, 6.0, "paper", warnings=["it copies"])
    text = report.summary([first, second])
    assert text.count("nearest of the training images") == text.count("warning: it copies") == 1
    assert text.index("FID 4.00") < text.index("modern:") < text.index("FID 6.00") < text.index("paper:")


def test_density_and_coverage_stand_behind_recall_where_a_result_has_them(tmp_path):
    found = result(1200, 4.0, density=0.875, coverage=0.625, held_out=REAL | {"density": 1.0, "coverage": 0.96875})
    assert "precision 0.75, recall 0.50, density 0.88, coverage 0.62\n" in report.summary([found])
    assert "recall 0.98, density 1.00, coverage 0.97 (299 of them)" in report.summary([found])
    assert report.flat(found)["coverage"] == 0.625
    (_, path), _ = report.write(tmp_path / "evaluation", [STEPS[0], found])
    with open(path, newline="") as file:
        old, new = csv.DictReader(file)
    assert (old["density"], new["density"], new["coverage"]) == ("", "0.875", "0.625")
    assert new["held_out_coverage"] == "0.96875"


def test_a_warning_of_the_extractor_stands_in_the_summary():
    warned = result(1200, 4.0)
    warned["protocol"]["features_warning"] = "not the published weights"
    assert "warning: not the published weights" in report.summary([warned])


def test_the_best_is_of_the_lowest_fid_among_results_that_compare_and_the_last_of_the_last_step():
    others = [result(step, fid, "paper") for step, fid in ((400, 1.0), (800, 2.0), (1200, 0.5))]
    fewer = result(1600, 0.25)
    fewer["protocol"]["num_samples"] = 500
    mixed = [*STEPS, *others, fewer]
    sentence = report.best_and_last(mixed, STEPS[0])
    told = "of 3 checkpoints, the best by FID is step 800 (FID 3.00, IS 8.80), the last step 1,200 (FID 4.00, IS 9.20)"
    assert told in sentence
    assert "modern: 5,000 samples" in sentence
    assert report.best_and_last(mixed, fewer) is None


def test_the_json_is_the_last_step_with_all_others_beside_it(tmp_path):
    (path, _), _ = report.write(tmp_path / "evaluation", STEPS)
    content = json.loads(path.read_text())
    assert {key: content[key] for key in STEPS[2]} == STEPS[2]
    assert content["results"] == STEPS
    assert content["best"] == {"checkpoint": STEPS[1]["checkpoint"], "step": 800, "fid": 3.0, "inception_score": 8.8}
    assert content["last"]["step"] == 1200


def test_the_json_of_a_single_result_is_that_result(tmp_path):
    (path, _), _ = report.write(tmp_path / "evaluation", STEPS[:1])
    assert json.loads(path.read_text()) == STEPS[0]


def test_the_csv_has_a_line_for_each_checkpoint_and_protocol(tmp_path):
    interval = {"low": 2.5, "high": 3.5, "level": 0.95, "std": 0.25, "resamples": 100}
    infinity = {"value": 2.75, "std": 0.1, "sizes": [1]}
    full = result(800, 3.0, fid_interval=interval, fid_infinity=infinity, warnings=['it "copies", badly', "it drops"])
    (_, path), _ = report.write(tmp_path / "evaluation", [STEPS[0], full])
    with open(path, newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == report.COLUMNS
    assert (first["step"], first["protocol"], first["fid"], first["fid_low"]) == ("400", "modern", "9.0", "")
    assert first["departures"] == "5,000 samples, not 50,000"
    expected = {"fid": 3.0, "fid_low": 2.5, "fid_high": 3.5, "fid_infinity": 2.75, "kid_std": 0.25, "nearer": 0.375}
    assert {name: float(second[name]) for name in expected} == expected
    assert second["warnings"] == 'it "copies", badly it drops'


REAL = {
    **{"what": "test images", "num": 299, "inception_score": {"mean": 9.79, "std": 0.5}, "fid": 0.3125},
    **{"kid": {"mean": 0.0001, "std": 0.001}, "precision": 0.99, "recall": 0.98},
}


def test_what_real_images_get_stands_beneath_the_scores_and_in_columns_of_the_csv(tmp_path):
    few = {"num": 299, "inception_score": {"mean": 8.0, "std": 0.1}, "fid": 5.25}
    real, none = (
        result(1200, 4.0, held_out=REAL, as_many=few),
        result(800, 3.0, held_out={"reason": "a folder has none"}),
    )
    line = "real test images: IS 9.79, FID 0.31, KID 0.0001, precision 0.99, recall 0.98 (299 of them)"
    line += "\n    299 samples: IS 8.00, FID 5.25 (to compare with those: the fewer, the higher the FID)"
    assert line in report.summary([real])
    assert "real test images: no scores, because a folder has none" in report.summary([none])
    (_, path), _ = report.write(tmp_path / "evaluation", [STEPS[0], none, real])
    with open(path, newline="") as file:
        first, second, third = csv.DictReader(file)
    assert (first["held_out_fid"], first["held_out_reason"]) == ("", "")
    assert (second["held_out_fid"], second["held_out_reason"]) == ("", "a folder has none")
    expected = {"num": 299, "inception_score": 9.79, "fid": 0.3125, "kid": 0.0001, "precision": 0.99, "recall": 0.98}
    assert {name: float(third[f"held_out_{name}"]) for name in expected} == expected


def test_labels_say_what_differs_where_they_would_be_the_same():
    other, of_G = result(400, 9.0), result(400, 9.0)
    other["protocol"]["seed"], of_G["protocol"]["ema"] = 7, False
    first, second, third = report.labels([[STEPS[0]], [other], [of_G]])
    assert first.endswith("(abcdef01), seed 0") and second.endswith("(abcdef01), seed 7")
    assert third.endswith("(abcdef01), G itself, not its EMA")


def test_every_score_is_explained_with_the_better_direction():
    for name, better in (
        ("IS", "more"),
        ("FID", "less"),
        ("KID", "less"),
        ("precision", "more"),
        ("recall", "more"),
        ("coverage", "more"),
    ):
        (line,) = [line for line in report.MEANINGS.splitlines() if line.split()[:1] == [name]]
        assert f"{better} is better" in line


def test_images_without_a_step_can_be_reported(tmp_path):
    given = result(0, 3.0)
    given["protocol"] |= {"step": None, "ema": None, "seed": None}
    assert "samples as given" in report.summary([given])
    paths, _ = report.write(tmp_path / "x_evaluation", [given, dict(given)])
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize("in_run", [True, False])
def test_pictures_lie_in_a_runs_plots_or_beside_what_was_scored(tmp_path, in_run):
    if in_run:
        (tmp_path / "checkpoints").mkdir()
    (path,) = report.draw(tmp_path / "evaluation", STEPS, {})
    assert path == tmp_path / ("plots" if in_run else "") / "evaluation_scores.png" and path.exists()
    assert (
        report.draw(tmp_path / "evaluation", STEPS[:1], {"evaluation": None}) == []
    )  # no curve through a single point


def test_a_score_that_rounds_to_zero_has_no_sign():
    result = {
        **{"fid": -1e-9, "inception_score": {"mean": 1.0, "std": 0.0}, "kid": {"mean": -1e-7, "std": 0.0}},
        "fid_interval": {"low": -0.004, "high": 0.1},
        "protocol": {
            **{"name": "modern", "num_samples": 10, "num_real": 10, "split": "train", "dataset": "digits"},
            **{"features": "classifier", "features_sha256": "0" * 64, "departures": [], "step": None},
            "features_warning": None,
        },
    }
    said = report.summary([result])
    assert "FID 0.00 (0.00 to 0.10)" in said and "KID 0.0000 +- 0.0000" in said and "-0.0" not in said
