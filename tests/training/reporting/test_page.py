"""The page of a run: what stands on it, that nothing is missing or cut, and that it follows the run."""

import html.parser
import json
import re

import numpy as np
import pytest
from browser import SIZES
from helpers import start
from PIL import Image

import train
from settings.config import Config
from training.reporting import page, rendering, sections
from training.reporting.showing import Show


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run of a few steps, with scores, warnings and an audit that are made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Show, "end", Show._write_page)
        flags = {"sample_every": 2, "lr_G": 1e-3, "model": "mlp", "audit_every": 12}
        run_dir = train.train(start(tmp_path_factory.mktemp("page"), **flags)).parent.parent
    (run_dir / "evaluation.json").write_text(json.dumps(scored(10)), encoding="utf-8")
    Image.new("RGB", (600, 300), "red").save(run_dir / "plots" / "evaluation_neighbours.png")
    with open(run_dir / "log.txt", "a", encoding="utf-8") as log:
        log.write("warning     <b>mind</b> this\n")
    page.write(run_dir)
    return run_dir


def scored(step):
    """A result as evaluation.json has it."""
    protocol = {"name": "modern", "step": step, "ema": True, "seed": 0, "num_samples": 100, "num_real": 1498}
    protocol |= {"dataset": "digits", "split": "train", "features": "classifier", "features_sha256": "0" * 64}
    return {
        "checkpoint": f"step_{step:06d}.pt",
        "inception_score": {"mean": 7.654, "std": 0.321},
        "fid": 12.345,
        "kid": {"mean": 0.1, "std": 0.01},
        "precision": 0.5,
        "recall": 0.25,
        "class_share": {"zero": 0.75, "one": 0.25},
        "class_share_training": {"zero": 0.5, "one": 0.5},
        "memorisation": {"nearer": 0.9, "unseen": "test images", "real": "training images"},
        "warnings": ["the generator may copy training images: look at the picture"],
        "protocol": protocol | {"departures": ["100 samples, not 50,000"], "features_warning": None},
    }


class Seen(html.parser.HTMLParser):
    """The text of a page, by tag, and the attributes of its elements."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self._tags = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._tags.append(tag)

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._tags):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self):
        return " ".join(" ".join(self.text).split())


def test_the_page_says_what_is_trained_where_it_is_and_what_to_type(run_dir):
    seen = Seen(run_dir / page.NAME)
    text = seen.words()
    for words in (
        "A mlp generator learns to draw digits, grey images of 8 x 8 pixels",
        "Step 12 of 12: finished.",
        "<b>mind</b> this",  # escaped
        "may copy training images: look at the picture. Train with --augment color translation cutout --augment_p "
        "adaptive.",
        "12 steps are few: the preset of digits and mlp has 3,000",
        "modern: 100 samples, 1,498 train images of digits",
        "Departs from the full protocol: 100 samples, not 50,000.",
        "nearer to one than test images are in 90% of comparisons",
        "At step 12 D's slope is at most",
        "Differences from configs/digits_mlp.yaml:",
        f"python main.py --resume {run_dir} --total_steps 24",
        f"python evaluate.py {run_dir}",
        f"python generate.py {run_dir} --num 64 --out samples",
    ):
        assert words in text, words
    for cells in (
        "step protocol IS ↑ FID ↓ KID ↓ precision ↑ recall ↑ nearer → 0.5",
        "10 modern 7.65 ± 0.32 12.35 0.1000 ± 0.0100 0.50 0.25 0.90",
        "class samples training images zero 75.0% 50.0%",
        "lr_G 0.001 0.0005",
    ):
        assert cells in text, cells


def test_the_page_is_one_file_whose_pictures_have_words(run_dir):
    seen = Seen(run_dir / page.NAME)
    addresses = [value for _, each in seen.elements for name, value in each.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert len(seen.all("img")) == 3 and all(picture["alt"] for picture in seen.all("img"))
    assert len(seen.all("svg")) == 6 and all(drawing["aria-label"] for drawing in seen.all("svg"))
    grids = json.loads(re.search(r'id="grids">(.*?)</script>', (run_dir / page.NAME).read_text())[1])
    assert [grid["step"] for grid in grids] == [0, 2, 4, 6, 8, 10, 12]
    assert seen.all("input")[0]["max"] == "6" and seen.all("main")[0]["data-live"] == "0"


def test_a_page_while_the_run_lives_says_so(run_dir):
    shown = page.content(run_dir, page.Now(3, 4000.0))
    assert shown["live"] and re.fullmatch(r"Step 3 of 12 at \d\d:\d\d:\d\d, about 1 h 6 min left\.", shown["status"])
    assert shown["commands"][0] == f"python main.py --resume {run_dir}" and shown["silence"] == page.SILENCE
    assert page.content(run_dir, page.Now(3, 60.0))["silence"] == 180
    assert re.fullmatch(r"Step 0 of 12 at [\d:]{8}\.", page.content(run_dir, page.Now(0))["status"])
    scoring = page.content(run_dir, page.Now(12, doing="being scored"))["status"]
    assert re.fullmatch(r"Step 12 of 12 at [\d:]{8}: being scored\.", scoring)


def test_the_page_names_the_file_and_the_size_that_were_given_and_asks_for_classes(run_dir, tmp_path):
    text = (run_dir / "config.yaml").read_text(encoding="utf-8")
    text = text.replace("dataset: digits", "dataset: mnist").replace("model: mlp", "model: dcgan")
    assert "record:\n- started" in text
    given = "record:\n- size: small\n  config: mine.yaml\n  classes: [ankle boot, '7']\n  started"
    (tmp_path / "config.yaml").write_text(text.replace("record:\n- started", given), encoding="utf-8")
    words = Seen(page.write(tmp_path)).words()
    assert "Differences from configs/mnist_dcgan_small.yaml, by --config mine.yaml and by flags:" in words
    assert f"python generate.py {tmp_path} --labels 'ankle boot' 7 --num 10 --out samples" in words


def test_a_run_that_was_killed_has_no_end_of_its_own():
    assert page._ended(["data  ", "run  "]) == "it was probably killed (out of memory?)"
    assert page._ended(["data  ", "ended       at step 1,234: loss_D is not finite"]) == "loss_D is not finite"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_a_time_is_said_in_its_two_largest_units(seconds, words):
    assert page.duration(seconds) == words


def test_a_run_without_anything_yet_has_a_page(run_dir, tmp_path):
    (tmp_path / "config.yaml").write_bytes((run_dir / "config.yaml").read_bytes())
    seen = Seen(page.write(tmp_path))
    assert "Step 0 of 12" in seen.words() and not seen.all("img") and not seen.all("svg")


@pytest.mark.parametrize("text", ["lr_G: -1", "3", "[1]", "config: [", "no_such_setting: 1"])
def test_a_page_that_cannot_be_made_is_no_error_of_its_caller(tmp_path, text, capsys):
    (tmp_path / "config.yaml").write_text(text)
    assert page.refresh(tmp_path) is None and "report.html could not be made" in capsys.readouterr().out
    assert page.refresh(tmp_path / "absent") is None


def test_every_warning_of_the_scores_has_an_advice_that_fits_the_run(tmp_path):
    texts = ["the generator has collapsed: a", "the generator drops modes: b", "the generator may copy c: d"]
    texts.append("recall 0.001: most real images lie near no sample, so modes are missing or e")

    def advice(step, **changes):
        result = scored(step) | {"warnings": texts}
        config = Config(dataset="digits", model="dcgan", **{"d_norm": ("batch",)} | changes)
        return [said.split(". ", 1)[1] for said in sections.warnings(tmp_path, result, config)]

    steps = "with smaller --lr_D and --lr_G, or with another --seed."
    augmented = "with --augment color translation cutout --augment_p adaptive."
    assert advice(600)[:3:2] == [f"Train with --d_norm spectral, {steps}", f"Train {augmented}"]
    assert advice(600, d_norm=("spectral",))[0] == f"Train {steps}"
    assert advice(600, num_images=75, augment=("cutout",))[2] == "Train on more images."
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_000400.pt").touch()
    assert advice(600, d_norm=("spectral",))[0] == f"Take an earlier checkpoint, or train {steps}"
    assert [text.split()[0] for text in advice(600)] == ["Take", "Train", "Take", "Look"]
    first = f"Train longer first: it has 171 of the usual 1,200 steps (--resume {tmp_path} --total_steps 1200)."
    assert advice(171) == [first, first, f"Train {augmented}", first]


def test_a_collapse_is_not_called_copies(run_dir):
    result = scored(10)
    assert "copies" in sections.pictures(run_dir, result)[0]["caption"]
    result["warnings"] = ["the generator has collapsed: a sample is as near as 0 to the next"]
    assert "comparisons" not in sections.pictures(run_dir, result)[0]["caption"]


def test_60_large_grids_stay_under_8_megabytes(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((1302, 1302), Image.Resampling.NEAREST).save(tmp_path / "a.png")
    Image.fromarray(noise[:, :, 0]).resize((662, 662)).save(tmp_path / "b.png")
    Image.new("L", (662, 662)).save(tmp_path / "c.png")
    for name, kind in (("a", "jpeg"), ("b", "jpeg"), ("c", "png")):
        address = rendering.embedded(tmp_path / f"{name}.png")
        assert address.startswith(f"data:image/{kind};base64,") and 60 * len(address) < 8e6


def test_a_picture_that_is_drawn_anew_is_embedded_anew(tmp_path):
    Image.new("L", (6, 6), 0).save(tmp_path / "a.png")
    first = rendering.embedded(tmp_path / "a.png")
    Image.new("L", (6, 6), 255).save(tmp_path / "a.png")
    assert rendering.embedded(tmp_path / "a.png") != first


# ---- In a browser --------------------------------------------------------------------------------------------------

SLIDER = 'document.getElementById("when")'
AT = 'document.getElementById("shown").textContent + "|" + document.getElementById("grid").alt'


def test_a_browser_shows_the_page_whole_and_the_slider_works_by_mouse_and_keyboard(run_dir, browser, tmp_path):
    at_rest = tmp_path / "report.html"
    at_rest.write_text((run_dir / page.NAME).read_text(encoding="utf-8").replace("< 60)", "< 0)"), encoding="utf-8")
    for width, dark in ((360, False), (1280, True)):
        browser.open(at_rest, width, dark)
        assert browser.value(SIZES) == {"wide": 0, "images": 3, "cut": 0, "missing": 0}
        paper = browser.value("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
    assert browser.value(AT) == "step 12|Samples at step 12"
    browser.value(f"{SLIDER}.scrollIntoView()")
    box = browser.value(f"(({{x, y, height}}) => [x, y, height])({SLIDER}.getBoundingClientRect())")
    browser.click(box[0] + 2, box[1] + box[2] / 2)
    assert browser.value(AT) == "step 0|Samples at step 0"
    browser.press("ArrowRight")
    assert browser.value(AT) == "step 2|Samples at step 2"
    browser.press("End")
    assert browser.value(AT) == "step 12|Samples at step 12"
    assert browser.value(f"{SLIDER}.getAttribute('aria-valuetext')") == "step 12"
    assert not browser.messages


def test_an_open_page_follows_the_run_keeps_its_place_and_stops_at_the_end(run_dir, browser, tmp_path):
    copy = tmp_path / "report.html"
    quick = {"again, 5000": "again, 300", "< 4000": "< 0", "< 60)": "< 0)"}

    def write(now):
        text = (page.write(run_dir, now)).read_text(encoding="utf-8")
        for slow, fast in quick.items():
            assert slow in text
            text = text.replace(slow, fast)
        copy.write_text(text, encoding="utf-8")

    status = 'document.querySelector(".status").textContent'
    write(page.Now(3, 60.0))
    browser.open(copy, 1280)
    assert browser.until(f"/^Step 3 of 12 at [0-9:]+, about 1 min 0 s left\\.$/.test({status})")
    assert browser.until(f"{SLIDER}.focus() || true")
    browser.press("ArrowLeft")
    assert browser.until(f'{AT} === "step 10|Samples at step 10"')
    write(page.Now(6, 30.0))
    assert browser.until(f"/^Step 6 of 12 at [0-9:]+, about 30 s left\\.$/.test({status})")
    assert browser.until(f'{AT} === "step 10|Samples at step 10" && document.activeElement.id === "when"')
    write(page.Now(12, ended="finished"))
    assert browser.until(f'{status} === "Step 12 of 12: finished."')
    assert browser.until('document.readyState === "complete"')
    loads = browser.loads
    browser.value("new Promise((done) => setTimeout(done, 600))")
    assert browser.loads == loads and not browser.messages
    page.write(run_dir)


def test_a_page_that_nobody_writes_anew_says_that_the_run_may_have_been_killed(run_dir, browser, tmp_path):
    text = page.write(run_dir, page.Now(3, 60.0)).read_text(encoding="utf-8")
    page.write(run_dir)
    written = int(re.search(r'data-written="(\d+)"', text)[1])
    for age, told in ((170, False), (600, True)):
        copy = tmp_path / f"{age}.html"
        copy.write_text(text.replace(f'"{written}"', f'"{written - age}"'), encoding="utf-8")
        browser.open(copy, 360)
        said = browser.value('document.querySelector(".status").textContent')
        assert ("No update for 10 min: the run may have been killed." in said) is told and not browser.messages


def test_the_text_of_curves_and_the_names_of_rows_can_be_read_on_a_telephone(run_dir, browser):
    for width in (360, 1280):
        browser.open(run_dir / page.NAME, width)
        sizes = "[...document.querySelectorAll('svg text')].map((e) => 13 * e.getScreenCTM().a)"
        assert browser.value(f"Math.min(...{sizes})") > 11
