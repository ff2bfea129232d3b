"""The log of a run: writing, cutting it off on resume, and reading logs that are incomplete, broken or hostile."""

import json
import math
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from conftest import ROOT

from training.log import RunLog
from training.log_events import SCHEMA, parse_event
from training.log_reader import MAX_LINE, MAX_SETS, LogReader

TRIALS = {"train": 1000, "dev": 400, "eval": 800}
EVENTS = {
    "start": {"epochs": 10, "batch_size": 24, "seed": 1, "trials": TRIALS, "init": None, "device": "cpu"},
    "progress": {
        "epoch": 1, "phase": "train", "done": 240, "total": 1000, "loss": 0.5, "utterances_per_second": 20.0,
    },
    "epoch": {
        "epoch": 1, "loss": 0.4, "lr": 1e-4, "dev_eer_percent": 5.0, "dev_min_tdcf": 0.1, "utterances_per_second": 20.0,
        "scored_per_second": 80.0, "seconds": 62.5, "averaged": False, "best": True, "peak_memory_bytes": None,
    },
    "resume": {"epoch": 1, "step": 0},
    "stop": {"signal": 15},
    "error": {"message": "training diverged"},
    "eval": {
        "epoch": 10, "checkpoint": "best", "dev_eer_percent": 2.0, "dev_min_tdcf": 0.05, "eer_percent": 3.0,
        "min_tdcf": 0.08,
    },
    "end": {"epoch": 10, "seconds": 625.0},
}  # fmt: skip


def event(kind: str, time: float = 1e9, **changes) -> dict:
    """An event of the documented schema."""
    return {"event": kind, "time": time, **EVENTS[kind], **changes}


def lines(*events: dict) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def training(epochs: int, first: int = 1, since: float = 1e9, each: float = 62.5) -> list[dict]:
    """Events of the epochs k from `first` on, `each` seconds long: dev EER 100/k %, min t-DCF 1/k, loss 2/k."""
    return [
        event(
            "epoch",
            since + k * each,
            epoch=k,
            loss=2 / k,
            dev_eer_percent=100 / k,
            dev_min_tdcf=1 / k,
            seconds=k * each,
        )
        for k in range(first, epochs + 1)
    ]


def read(path: Path) -> LogReader:
    log = LogReader(path)
    log.refresh()
    return log


@pytest.mark.parametrize("kind", EVENTS)
def test_every_documented_event_is_read(kind):
    assert EVENTS.keys() == SCHEMA.keys()
    given = event(kind)
    found = parse_event(json.dumps(given).encode())
    assert given.items() <= found.items()
    assert all(value is None for key, value in found.items() if key not in given)
    assert parse_event(json.dumps(given | {"new": 1}).encode()) == found


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_that_does_not_fit_is_refused(kind):
    for key, fits in {"time": None, **SCHEMA[kind]}.items():
        name = key.removesuffix("?")
        for wrong in (-1, float("nan"), float("inf"), 10**400, [], {"a": 1}, [[]]):
            assert parse_event(json.dumps(event(kind) | {name: wrong}).encode()) is None, (name, wrong)
        less = {other: value for other, value in event(kind).items() if other != name}
        assert (parse_event(json.dumps(less).encode()) is None) == (name == key), name
        if fits is None or not fits("x"):
            assert parse_event(json.dumps(event(kind) | {name: "x"}).encode()) is None, name
        if fits is None or not fits(True):
            assert parse_event(json.dumps(event(kind) | {name: True}).encode()) is None, name


def test_the_page_documents_every_event_and_key():
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}
    for kind, keys in SCHEMA.items():
        for key in keys:
            assert f"`{key.removesuffix('?')}`" in rows[kind], (kind, key)


@pytest.mark.parametrize("piece", [3, 300])
def test_a_growing_log_is_read_on_whatever_the_pieces(tmp_path, piece):
    whole, path = lines(event("start"), *training(3), event("progress", epoch=4)), tmp_path / "log.jsonl"
    log = LogReader(path)
    for end in range(0, len(whole) + piece, piece):
        path.write_bytes(whole[:end])
        log.refresh()
        assert len(log.epochs) == min(3, max(0, whole[:end].count(b"\n") - 1)) and log.skipped == 0
    assert list(log.epochs) == [1, 2, 3] and log.last["event"] == "progress"
    assert not log.refresh()


def test_a_half_written_line_waits_for_its_end(tmp_path):
    path = tmp_path / "log.jsonl"
    text = lines(event("start"), *training(2))
    path.write_bytes(text[:-20])
    log = read(path)
    assert list(log.epochs) == [1] and log.skipped == 0
    path.write_bytes(text)
    assert log.refresh() and list(log.epochs) == [1, 2] and log.skipped == 0


@pytest.mark.parametrize("more", [0, 1, 20])
def test_a_log_that_a_resumed_run_rewrote_is_read_anew(tmp_path, more):
    """Cut off after epoch 2; then it is shorter than what was read, or longer again by the next look."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(event("start"), *training(4), event("progress", epoch=5)))
    log = read(path)
    assert list(log.epochs) == [1, 2, 3, 4]
    again = training(2 + more, first=3, since=2e9)
    path.write_bytes(lines(event("start"), *training(2), event("resume", 2e9, epoch=2), *again))
    assert log.refresh()
    assert list(log.epochs) == list(range(1, 3 + more))
    assert log.last["event"] == ("epoch" if more else "resume")


def test_a_replaced_log_of_the_same_size_is_read_anew(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(event("start", seed=1), *training(2)))
    log = read(path)
    path.write_bytes(lines(event("start", seed=2), *training(2)))
    assert log.refresh() and log.start["seed"] == 2 and list(log.epochs) == [1, 2]


def test_resuming_takes_back_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(event("start"), *training(4), event("resume", epoch=2), *training(3, first=3, since=2e9)))
    log = read(path)
    assert list(log.epochs) == [1, 2, 3] and log.epochs[3]["time"] > 2e9
    with path.open("ab") as file:
        file.write(lines(event("start", seed=7)))
    log.refresh()
    assert log.epochs == {} and log.start["seed"] == 7


def test_a_log_that_is_gone_for_a_moment_keeps_what_it_said(tmp_path):
    path = tmp_path / "log.jsonl"
    log = LogReader(path)
    assert not log.refresh() and log.trouble == "No such file or directory" and log.last is None
    path.write_bytes(lines(event("start"), *training(2)))
    assert log.refresh() and log.trouble is None
    path.rename(tmp_path / "elsewhere")
    assert not log.refresh() and log.trouble and list(log.epochs) == [1, 2]
    (tmp_path / "elsewhere").rename(path)
    assert not log.refresh() and log.trouble is None and list(log.epochs) == [1, 2]


def test_a_pipe_or_a_folder_is_no_log(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        log = read(path)
        assert log.trouble == "no regular file" and log.last is None


GARBAGE = [
    b"", b"\x00" * 100, b"\xff\xfe\xfa", b"null", b"[]", b"3", b'"epoch"', b"{}", b'{"event": 3, "time": 1}',
    b'{"event": ["epoch"], "time": 1}', b'{"event": "epoch"}', b'{"event": "new", "time": 1}', b"[" * 50_000,
    b'{"a":' * 5_000, b"1" * 10_000, b"x" * (2 * MAX_LINE), b'{"event": "stop", "time": NaN}',
    b'{"event": "stop", "time": 1e999}', b"<<<<<<< HEAD",
]  # fmt: skip


def test_garbage_is_counted_and_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    good = [event("start"), *training(8), event("end")]
    mixed = b"".join(
        line + b"\n" + lines(good[i]) if i < len(good) else line + b"\r\n" for i, line in enumerate(GARBAGE)
    )
    path.write_bytes(mixed)
    log = read(path)
    assert list(log.epochs) == list(range(1, 9)) and log.last["event"] == "end"
    assert log.skipped == len(GARBAGE) - 1  # an empty line is no mistake


def test_no_bytes_bring_it_down(tmp_path):
    path, chance = tmp_path / "log.jsonl", random.Random(3)
    whole = lines(event("start"), *training(5), event("eval"), event("stop"))
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 30)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken)
        log = read(path)
        assert log.trouble is None and log.skipped <= 31


def test_memory_stays_bounded(tmp_path):
    path = tmp_path / "log.jsonl"
    block = lines(event("start"), *[event("progress", 1e9 + i) for i in range(500)])
    with path.open("wb") as file:
        for _ in range(40):
            file.write(block)
        file.write(b"x" * 20_000_000)  # a line without an end
    tracemalloc.start()
    try:
        log = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert log.last["event"] == "progress" and log._offset == path.stat().st_size > 20_000_000
    assert peak < 6_000_000


def test_further_eval_sets_stand_beside_eval(tmp_path):
    path, sets = tmp_path / "log.jsonl", ("in_the_wild", "asvspoof5")
    events = [event("eval", checkpoint=name) for name in ("best", "swa")]
    events += [event("eval", checkpoint="best", eer_percent=30.0, data_set=name) for name in sets]
    path.write_bytes(lines(event("start"), *events))
    log = read(path)
    assert log.evals.keys() == {"best", "swa"} and log.evals["best"]["eer_percent"] == 3.0
    assert {name: evals["best"]["eer_percent"] for name, evals in log.further.items()} == dict.fromkeys(sets, 30.0)
    path.write_bytes(lines(event("start"), *(event("eval", data_set=f"set{i}") for i in range(3 * MAX_SETS))))
    assert len(read(path).further) == MAX_SETS
    path.write_bytes(lines(event("start"), event("eval", data_set="x" * 300), event("eval", data_set="")))
    assert read(path).skipped == 2


def test_log_is_cut_to_what_the_checkpoint_knew(tmp_path):
    log = RunLog(tmp_path)
    log.event("epoch", epoch=1, loss=0.5)
    log.line("one")
    sizes = log.sizes()
    log.event("epoch", epoch=2, loss=0.4)
    log.line("two")
    RunLog(tmp_path, sizes).event("epoch", epoch=2, loss=0.3)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["event"], e["epoch"], e["loss"]) for e in events] == [("epoch", 1, 0.5), ("epoch", 2, 0.3)]
    assert (tmp_path / "metric_log.txt").read_text() == "one\n"
    with pytest.raises(ValueError, match="JSON"):
        log.event("epoch", loss=math.nan)


@pytest.mark.parametrize("left", [0, 5, -20, None])
def test_a_log_that_has_lost_its_end_goes_on_after_its_last_whole_line(tmp_path, capsys, left):
    """Cut at its beginning, in its first or last line, or gone."""
    log = RunLog(tmp_path)
    for epoch in (1, 2):
        log.event("epoch", epoch=epoch, loss=0.5)
        log.line(f"epoch {epoch}")
    sizes, path = log.sizes(), tmp_path / "log.jsonl"
    path.unlink() if left is None else path.write_bytes(path.read_bytes()[:left])
    RunLog(tmp_path, sizes).event("resume", epoch=2)
    assert f"note: {path} has lost its last " in capsys.readouterr().err
    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == ([1] if left == -20 else [])
    assert events[-1]["event"] == "resume" and (tmp_path / "metric_log.txt").read_text() == "epoch 1\nepoch 2\n"
