"""The results in evaluation.json: which are of the same thing, and which may be compared.

A result is replaced only by scoring the same thing again.
"""

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from settings.config import Config
from utils.files import file_sha256, numbered, write_text, writing_into
from utils.locks import locked

from ..inputs.features import Say, extractor_name
from ..inputs.inception import INCEPTION_SHA256
from ..protocol import PROTOCOLS, plan
from ..scores.registry import scores_of

Result = dict[str, Any]  # of a generator under a protocol, as in evaluation.json

# Keys of a result's protocol: those that must be equal to compare scores, and those that also identify a result.
COMPARED = (
    *("name", "num_samples", "inception_score_samples", "num_real", "dataset", "split", "reference", "data_sha256"),
    *("features", "features_sha256", "image_size", "resize"),
)
SOURCE = ("step", "ema", "seed", "samples_sha256")
NEEDED = ("name", "departures", "dataset", "split", "features", "features_sha256", "features_warning", "ema", "seed")
COSTLY = ("fid_interval", "kid_interval", "fid_infinity", "held_out")  # optional, without influence on scores


def comparable(result: Result) -> tuple[Any, ...]:
    """A key, equal for results that may be compared: protocol, counts, real images and extractor."""
    return tuple(result["protocol"].get(name) for name in COMPARED)


def identity(result: Result) -> tuple[Any, ...]:
    """A key, equal for results of the same thing: also checkpoint, EMA, seed, or given samples."""
    name = Path(result.get("checkpoint") or "").name
    return name, *(result["protocol"].get(name) for name in SOURCE), *comparable(result)


def real_name(held_out: dict[str, Any]) -> str:
    """The name of the scored real images, with their number. With fewer, FID is higher."""
    return f"real {held_out.get('what', 'test images')}" + (f" ({held_out['num']:,})" if "num" in held_out else "")


def step_of(result: Result) -> int | None:
    return result["protocol"].get("step")


def headline(results: Sequence[Result]) -> Result:
    """Choose the result for the top level by rules in this order. Latest step; EMA rather than G itself; data set
    rather than --reference; protocol modern, then paper, then test; more samples; scored later."""
    order = {name: -place for place, name in enumerate(PROTOCOLS)}

    def rank(pair: tuple[int, Result]) -> tuple[Any, ...]:
        protocol = pair[1]["protocol"]
        own = order.get(protocol["name"], -len(order)), protocol["num_samples"], pair[0]
        return step_of(pair[1]) or 0, bool(protocol.get("ema")), not protocol.get("reference"), *own

    return max(enumerate(results), key=rank)[1]


def over_steps(results: Iterable[Result], like: Result) -> list[Result]:
    """The results that differ from one only in the checkpoint, sorted by step."""

    def kind(result: Result) -> tuple[Any, ...]:
        return comparable(result), *(result["protocol"].get(name) for name in ("ema", "seed"))

    found = [result for result in results if step_of(result) is not None and kind(result) == kind(like)]
    return sorted(found, key=lambda result: step_of(result) or 0)


def best_and_last(steps: Sequence[Result]) -> dict[str, Result]:
    """{best, last} of the results from over_steps(), best by FID; {} for a single one."""
    return {"best": min(steps, key=lambda result: result["fid"]), "last": steps[-1]} if len(steps) > 1 else {}


def standing(
    stem: Path, config: Config, step: int, ema: bool, reference: str | None = None, needs: Sequence[str] = ()
) -> list[Result] | None:
    """The latest result in STEM.json under each protocol of a configuration, for this checkpoint.

    Returns None if one is missing, or lacks a key of `needs`. Does not check whether the data set's images are still
    the same.
    """
    asked = {"step": step, "ema": ema, "seed": config.seed, "reference": reference}
    found: dict[str, Result] = {}
    for result in read(stem):
        protocol, name = result["protocol"], result["protocol"]["name"]
        if (
            name in config.protocol
            and asked == {key: protocol.get(key) for key in asked}
            and plan(name, protocol["num_real"], config.num_samples).num_samples == protocol["num_samples"]
            and _same_extractor(config, protocol)
            and all(need in result for need in needs)
        ):
            found[name] = result
    return [found[name] for name in config.protocol] if set(config.protocol) == set(found) else None


def _same_extractor(config: Config, protocol: dict[str, Any]) -> bool:
    """Whether a score used a configuration's extractor and, for Inception, the same weights."""
    name, given, weights = extractor_name(config), config.inception_weights, ""
    if given and not Path(given).is_file():  # scoring will report it
        return False
    if name == "inception":  # a classifier's weights depend on the data
        weights = file_sha256(given) if given else INCEPTION_SHA256
    return protocol["features"].startswith(name) and protocol["features_sha256"].startswith(weights)


def merged(before: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """All results, sorted by step and then by time of scoring. A new one replaces an old one of the same thing.

    Costly extras such as intervals are kept if the FID is the same to the bit.
    """
    found = {identity(result): result for result in before}
    for result in new:
        old = found.pop(identity(result), {})
        same = old.get("fid") == result["fid"]
        found[identity(result)] = {name: old[name] for name in COSTLY if same and name in old} | result
    return sorted(found.values(), key=lambda result: step_of(result) or 0)


def read(stem: Path) -> list[Result]:
    """The complete results in STEM.json; [] without any."""
    return _entries(stem.with_name(stem.name + ".json"))[0]


def write(stem: Path, new: Iterable[Result], say: Say = print) -> list[Result]:
    """Merge results into STEM.json, and return all of its results.

    The top level is the headline(), followed by `best` and `last` of the results that compare with it, and all
    `results`. The file is read only now, under a lock, so that two processes that score one run keep each other's
    results. A damaged file is renamed, with a message. Raises UserError if it cannot be written.
    """
    path = stem.with_name(stem.name + ".json")
    with writing_into(path.parent), locked(path.with_name(f".{stem.name}.lock")):
        before, damaged = _entries(path)
        results = merged(before, new)
        if damaged:
            names = numbered(path.with_name(path.name + ".damaged"))
            aside = path.rename(next(name for name in names if not os.path.lexists(name)))
            kept = f"; {len(before)} intact results kept" if before else ""
            say(f"{path} is damaged or holds no scores, and was renamed to {aside.name}{kept}")
        write_text(path, json.dumps(_content(results), indent=2) + "\n")
    return results


def _content(results: list[Result]) -> dict[str, Any]:
    content = dict(headline(results))
    for name, chosen in best_and_last(over_steps(results, content)).items():
        scores = {"fid": chosen["fid"], "inception_score": chosen["inception_score"]["mean"]}
        content[name] = {"checkpoint": chosen.get("checkpoint"), "step": step_of(chosen), **scores}
    return content | ({"results": results} if len(results) > 1 else {})


def _entries(path: Path) -> tuple[list[Result], bool]:
    """The complete results of a file, and whether it is damaged or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        top = {name: value for name, value in content.items() if name not in ("best", "last")}
        results = content.get("results", [top])
        whole = [result for result in results if _whole(result)]
        return whole, len(whole) < len(results)
    except FileNotFoundError:
        return [], False
    except (OSError, ValueError, RecursionError, TypeError, AttributeError):
        return [], True


def _whole(result: Any) -> bool:
    """Whether this is a complete result, with numbers as scores and the keys of a protocol."""
    try:
        protocol: dict[str, Any] = result["protocol"]
        columns: dict[str, Any] = {}
        for score in scores_of("images", "modes").values():
            columns |= {name: value for name, value in score.columns(result).items() if value is not None}
        counts = [protocol["num_samples"], protocol["num_real"], protocol["step"] or 0]
        return (
            {"fid", "inception_score", "inception_score_std"} <= columns.keys()
            and all(type(number) in (int, float) and math.isfinite(number) for number in columns.values())
            and all(type(count) is int for count in counts)
            and all(name in protocol for name in NEEDED)
            and all(isinstance(protocol[name], str) for name in ("name", "features", "features_sha256"))
        )
    except (KeyError, TypeError, AttributeError):
        return False
