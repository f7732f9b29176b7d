"""The scores that a run keeps: which are of the same thing, which may be compared, and evaluation.json itself.

A score is replaced by scoring the same thing again, and by nothing else.
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

Result = dict[str, Any]  # of a generator under a protocol, as evaluation.json has it

# Of a result's protocol: what has to be alike where scores are compared, and what else makes a score another one.
COMPARED = (
    *("name", "num_samples", "inception_score_samples", "num_real", "dataset", "split", "reference", "data_sha256"),
    *("features", "features_sha256", "image_size", "resize"),
)
SOURCE = ("step", "ema", "seed", "samples_sha256")
NEEDED = (
    *("name", "departures", "num_samples", "num_real", "dataset", "split", "features", "features_sha256"),
    *("features_warning", "step", "ema", "seed"),
)
COSTLY = ("fid_interval", "kid_interval", "fid_infinity", "held_out")  # asked for or not, they change no score


# ---- What is the same, and what compares ----------------------------------------------------------------------------


def comparable(result: Result) -> tuple[Any, ...]:
    """Equal for results that may stand side by side: protocol, counts, real images and extractor."""
    return tuple(_plain(result["protocol"].get(name)) for name in COMPARED)


def identity(result: Result) -> tuple[Any, ...]:
    """Equal for results of the same thing: also checkpoint, EMA, seed of the samples, or the samples themselves."""
    name = Path(result.get("checkpoint") or "").name
    return name, *(_plain(result["protocol"].get(name)) for name in SOURCE), *comparable(result)


def _plain(value: Any) -> Any:
    """A value that can be hashed, whatever a file has in this place."""
    return value if isinstance(value, (str, int, float, type(None))) else json.dumps(value)


def step_of(result: Result) -> int | None:
    return result["protocol"].get("step")


def headline(results: Sequence[Result]) -> Result:
    """The result that stands for all: of the last step, there of the EMA before G itself, and of the data set before a
    reference; modern before paper before test, more samples before fewer, a later scoring before an earlier one."""
    order = {name: -place for place, name in enumerate(PROTOCOLS)}

    def rank(pair: tuple[int, Result]) -> tuple[Any, ...]:
        protocol = pair[1]["protocol"]
        own = order.get(protocol["name"], -len(order)), protocol["num_samples"], pair[0]
        return step_of(pair[1]) or 0, bool(protocol.get("ema")), not protocol.get("reference"), *own

    return max(enumerate(results), key=rank)[1]


def over_steps(results: Iterable[Result], like: Result) -> list[Result]:
    """Those of the results that differ from one in nothing but the checkpoint, in the order of their steps."""

    def kind(result: Result) -> tuple[Any, ...]:
        return comparable(result), *(result["protocol"].get(name) for name in ("ema", "seed"))

    found = [result for result in results if step_of(result) is not None and kind(result) == kind(like)]
    return sorted(found, key=lambda result: step_of(result) or 0)


def standing(
    stem: Path, config: Config, step: int, ema: bool, reference: str | None = None, needs: Sequence[str] = ()
) -> list[Result] | None:
    """What STEM.json has of this checkpoint as a configuration asks for it: the latest result under each protocol.

    None where one is missing, or has not what it needs beside the scores. That the data set's images are still those
    that it was scored against is not looked at.
    """
    results = [result for result in read(stem) if all(name in result for name in needs)]
    found: dict[str, Result] = {}
    for result in results:
        protocol = result["protocol"]
        name, asked = protocol["name"], (step, ema, config.seed, reference)
        same = tuple(protocol.get(key) for key in ("step", "ema", "seed", "reference")) == asked
        same = same and protocol["features"].startswith(extractor_name(config)) and _same_weights(config, protocol)
        if name in config.protocol and same:
            wanted = plan(name, protocol["num_real"], config.num_samples)
            found |= {name: result} if wanted.num_samples == protocol["num_samples"] else {}
    return [found[name] for name in config.protocol] if set(found) == set(config.protocol) else None


def _same_weights(config: Config, protocol: dict[str, Any]) -> bool:
    """Whether a score is by the Inception weights that a configuration names; a classifier's come of the data."""
    given = config.inception_weights
    if extractor_name(config) == "classifier":
        return True
    if given and not Path(given).is_file():  # scoring will say so
        return False
    return protocol["features_sha256"].startswith(file_sha256(given) if given else INCEPTION_SHA256)


def merged(before: Iterable[Result], new: Iterable[Result]) -> list[Result]:
    """All results, those of a step in the order of their scoring; a new one takes the place of one of the same thing.

    Intervals and the like, which cost extra, stay where it finds the same FID to the bit.
    """
    found = {identity(result): result for result in before}
    for result in new:
        old = found.pop(identity(result), {})
        same = old.get("fid") == result["fid"]
        found[identity(result)] = {name: old[name] for name in COSTLY if same and name in old} | result
    return sorted(found.values(), key=lambda result: step_of(result) or 0)


# ---- evaluation.json ------------------------------------------------------------------------------------------------


def read(stem: Path) -> list[Result]:
    """The results in STEM.json that are whole; [] where there are none."""
    return _entries(stem.with_name(stem.name + ".json"))[0]


def write(stem: Path, new: Iterable[Result], say: Say = print) -> list[Result]:
    """Merge results into STEM.json, and return all that it holds then.

    Its top level is that of headline(); beside it `results` are all, and of those that may be compared with it over
    several steps `best`, by FID, and `last` name a checkpoint each. The file is read here, at the end, so that of two
    processes that score one run neither loses what the other found. One that cannot be read, or not all of it, is kept
    under another name, and said. UserError where nothing can be written.
    """
    path = stem.with_name(stem.name + ".json")
    with writing_into(path.parent), locked(path.with_name(f".{stem.name}.lock")):
        before, trouble = _entries(path)
        results = merged(before, new)
        if trouble:
            say(f"{path} {trouble}; what it was is kept as {_set_aside(path).name}")
        write_text(path, json.dumps(_content(results), indent=2) + "\n")
    return results


def _content(results: list[Result]) -> dict[str, Any]:
    content = dict(headline(results))
    steps = over_steps(results, content)
    if len(steps) > 1:
        for name, chosen in (("best", min(steps, key=lambda result: result["fid"])), ("last", steps[-1])):
            scores = {"fid": chosen["fid"], "inception_score": chosen["inception_score"]["mean"]}
            content[name] = {"checkpoint": chosen.get("checkpoint"), "step": step_of(chosen), **scores}
    return content | ({"results": results} if len(results) > 1 else {})


def _entries(path: Path) -> tuple[list[Result], str | None]:
    """The results of a file that are whole, and in words what else is there that a new one would not keep."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return [], "is no JSON, or damaged"
    if not isinstance(content, dict):
        return [], "holds no scores"
    top = {name: value for name, value in content.items() if name not in ("results", "best", "last")}
    entries = content.get("results", [top])
    entries = entries if isinstance(entries, list) else [entries]
    results = [entry for entry in entries if _whole(entry)]
    lost = len(entries) - len(results)
    return results, f"holds {lost} of {len(entries)} scores that cannot be read" if lost else None


def _whole(entry: Any) -> bool:
    """Whether this is a result that can be shown: its scores are numbers, and its protocol says what they are of."""
    try:
        protocol = entry["protocol"]
        numbers = [entry["fid"], entry["inception_score"]["mean"], entry["inception_score"]["std"]]
        columns = [column for score in scores_of("images").values() for column in score.columns(entry).values()]
        numbers += [column for column in columns if column is not None]
        numbers += [entry["modes"][name] for name in ("found", "of", "kl", "num_samples") if "modes" in entry]
        counts = [protocol["num_samples"], protocol["num_real"]]
        steps = [protocol["step"]] if protocol["step"] is not None else []
        return (
            all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
            and all(type(count) is int for count in counts + steps)
            and all(name in protocol for name in NEEDED)
            and all(isinstance(protocol[name], str) for name in ("name", "features", "features_sha256"))
            and isinstance(protocol["departures"], list)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _set_aside(path: Path) -> Path:
    """Rename a file, so that it is neither taken for scores nor overwritten. Returns its new path."""
    names = numbered(path.with_name(path.name + ".damaged"))
    return path.rename(next(name for name in names if not os.path.lexists(name)))
