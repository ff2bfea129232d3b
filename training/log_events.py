"""The events of a run's log.jsonl: which there are, and what each holds. docs/monitoring.md explains them.

`log.py` writes them, `log_reader.py` reads them.
"""

import json
import re
from collections.abc import Callable

from config import MAX_EPOCHS

MAX_NAME = 255  # letters in the name of a data set
PHASES = ("train", "dev", "swa", "eval")


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _epoch(value: object) -> bool:
    return _count(value) and 1 <= value <= MAX_EPOCHS


def _amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e18  # neither NaN nor infinite


def _percent(value: object) -> bool:
    return _amount(value) and value <= 100


def _text(value: object) -> bool:
    return isinstance(value, str)


def _name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _phase(value: object) -> bool:
    return isinstance(value, str) and value in PHASES


def _checkpoint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("best|swa|ema|epoch_[0-9]{1,5}", value) is not None


def _trials(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= {"train", "dev", "eval"} and all(map(_count, value.values()))


# Each event's keys and the test that a value must pass. A key with `?` may be absent or null. Every event has `time`.
SCHEMA: dict[str, dict[str, Callable[[object], bool]]] = {
    "start": {
        "epochs": _epoch, "batch_size": _count, "seed": _count, "trials": _trials, "init?": _text, "device?": _text,
        "parameters?": _count, "processes?": _count, "precision?": _text, "cache?": _text, "torch?": _text,
        "threads?": _count,
    },
    "progress": {
        "epoch": _epoch, "phase": _phase, "done": _count, "total": _count, "loss?": _amount,
        "utterances_per_second?": _amount,
    },
    "epoch": {
        "epoch": _epoch, "loss": _amount, "lr?": _amount, "dev_eer_percent": _percent, "dev_min_tdcf?": _amount,
        "utterances_per_second?": _amount, "scored_per_second?": _amount, "seconds?": _amount, "averaged?": _flag,
        "best?": _flag, "peak_memory_bytes?": _count,
    },
    "resume": {"epoch": _count, "step?": _count},
    "stop": {"signal?": _count},
    "error": {"message?": _text},
    "eval": {
        "epoch?": _count, "checkpoint": _checkpoint, "dev_eer_percent?": _percent, "dev_min_tdcf?": _amount,
        "eer_percent": _percent, "min_tdcf?": _amount, "data_set?": _name,
    },
    "end": {"epoch?": _count, "seconds?": _amount},
}  # fmt: skip


def parse_event(line: bytes) -> dict | None:
    """The event in a line, with every key of `SCHEMA` (None where absent); None if the line does not fit."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _text(found.get("event")) or found["event"] not in SCHEMA:
        return None
    event = {"event": found["event"]}
    for key, fits in {"time": _amount, **SCHEMA[found["event"]]}.items():
        name = key.removesuffix("?")
        event[name] = found.get(name)
        if not fits(event[name]) and not (event[name] is None and name != key):
            return None
    return event
