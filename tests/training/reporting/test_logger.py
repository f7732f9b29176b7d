"""log.txt, stats.jsonl and TensorBoard."""

import io
import json
import sys

import pytest
from helpers import at_step, logged, start
from PIL import Image

import train
from training.reporting.logger import Logger, read_stats, summary_writer
from utils.errors import UserError


def write_run(run_dir, steps):
    logger = Logger(run_dir)
    for step in steps:
        logger.write(step, {"loss_D": step / 10})
    logger.close()


def test_what_is_written_is_read_back_in_order(tmp_path):
    write_run(tmp_path, [10, 20])
    assert read_stats(tmp_path) == [{"step": 10, "loss_D": 1.0}, {"step": 20, "loss_D": 2.0}]


def test_a_line_is_on_the_disk_before_the_logger_is_closed(tmp_path):
    logger = Logger(tmp_path)
    logger.write(1, {"loss_D": 0.5})
    logger.say("hello")
    assert read_stats(tmp_path) == [{"step": 1, "loss_D": 0.5}]
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    logger.close()


def test_numbers_that_json_has_no_name_for_become_null(tmp_path):
    logger = Logger(tmp_path)
    logger.write(1, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1.5, "e": 2})
    logger.close()
    text = (tmp_path / "stats.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "a": None, "b": None, "c": None, "d": 1.5, "e": 2}


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    write_run(tmp_path, [10, 20])
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"step": 30, "loss_')
    assert [line["step"] for line in read_stats(tmp_path)] == [10, 20]


def test_a_run_without_statistics_has_none(tmp_path):
    assert read_stats(tmp_path) == []


def test_resuming_drops_the_lines_of_later_steps_and_goes_on_behind_the_rest(tmp_path):
    write_run(tmp_path, [10, 20, 30])
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"step": 4')
    logger = Logger(tmp_path, step=20)
    logger.write(25, {"loss_D": 0.0})
    logger.close()
    assert [line["step"] for line in read_stats(tmp_path)] == [10, 20, 25]


def test_what_is_said_goes_to_the_terminal_and_is_kept_over_a_resume(tmp_path, capsys):
    for text in ("first", "second ü"):
        logger = Logger(tmp_path)
        logger.say(text)
        logger.close()
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "first\nsecond ü\n"
    assert capsys.readouterr().out == "first\nsecond ü\n"


def test_tensorboard_gets_the_finite_numbers_and_the_grids(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = Logger(tmp_path, tensorboard=True)
    logger.write(10, {"loss_D": 0.5, "loss_G": float("nan")})
    logger.write(20, {"loss_D": 0.25})
    logger.picture(20, "samples", Image.new("L", (6, 4), 200))
    logger.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (shown,) = events.Images("samples")
    with Image.open(io.BytesIO(shown.encoded_image_string)) as picture:
        assert (shown.step, picture.size, picture.convert("L").getpixel((3, 2))) == (20, (6, 4), 200)
    assert events.Tags()["scalars"] == ["loss_D"]
    assert [(event.step, event.value) for event in events.Scalars("loss_D")] == [(10, 0.5), (20, 0.25)]


def test_tensorboard_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        summary_writer()


# ---- Of a run ------------------------------------------------------------------------------------------------------


def test_statistics_can_be_read_while_they_are_written(tmp_path, no_pictures, monkeypatch):
    seen = []
    at_step(monkeypatch, 7, lambda: seen.append(logged(tmp_path / "run")))
    train.train(start(tmp_path))
    assert seen == [[2, 4, 6]]


def test_tensorboard_gets_the_statistics(tmp_path, no_pictures):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.train(start(tmp_path, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    written = [(event.step, pytest.approx(event.value)) for event in events.Scalars("loss_D")]
    assert written == [(line["step"], line["loss_D"]) for line in read_stats(tmp_path / "run")]


def test_stats_are_json_lines(tmp_path, no_pictures):
    train.train(start(tmp_path, total_steps=2))
    lines = (tmp_path / "run" / "stats.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]
