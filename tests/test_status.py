"""The status of runs: what a log means, which runs a folder holds, and how they are shown."""

import random
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_run_log import EVENTS, event, lines, training

from common.errors import UserError
from training import status
from training.status import RunStatus, gpu_status, missing_gpu_package, refresh_runs
from training.status_view import LEFT_ALIGNED, SPARE, Snapshot, snapshot_lines, table_row
from training.terminal import display_width, table


def make_run(folder: Path, *events: dict, weights: tuple[str, ...] = ("best", "last")) -> Path:
    (folder / "weights").mkdir(parents=True)
    (folder / "config.conf").write_text("batch_size: 24\n")
    (folder / "log.jsonl").write_bytes(lines(*events))
    for name in weights:
        (folder / "weights" / f"{name}.pth").write_bytes(b"0" * 2048)
    return folder


def watched(folder: Path, *events: dict) -> RunStatus:
    run = RunStatus(make_run(folder, *events))
    run.refresh()
    return run


def shown(runs: list[RunStatus], width: int = 80, now: float | None = None, unicode: bool = True) -> str:
    return "\n".join(snapshot_lines(Snapshot(runs, now or time.time(), "", []), width, 4, unicode))


# ----------------------------------------------------------------------------------------------------- what a log means


@pytest.mark.parametrize(
    ("last", "state"),
    [
        (event("start"), "starting"),
        (event("resume", epoch=1), "starting"),
        (event("progress", phase="train"), "training"),
        (event("progress", phase="dev"), "scoring dev"),
        (event("progress", phase="swa"), "averaging"),
        (event("progress", phase="eval"), "scoring eval"),
        (event("epoch", epoch=9), "training"),
        (event("epoch", epoch=10), "averaging"),
        (event("stop"), "stopped"),
        (event("error"), "failed"),
        (event("end"), "finished"),
    ],
)
def test_state_is_what_the_newest_event_says(tmp_path, last, state):
    assert watched(tmp_path / "run", event("start"), last).state() == state


def test_eval_of_a_new_best_is_part_of_training(tmp_path):
    begun = watched(tmp_path / "a", event("start"), *training(3), event("eval", checkpoint="epoch_3"))
    done = watched(tmp_path / "b", event("start"), *training(10), event("eval"))
    assert (begun.state(), done.state()) == ("training", "scoring eval")
    assert RunStatus(tmp_path / "nothing").state() == "starting"


def test_time_left_is_epochs_times_seconds(tmp_path):
    """Epochs of 100 s; 1000 utterances at 12.5/s train in 80 s of them, so half of training is 0.4 epochs."""
    epochs = [event("epoch", epoch=k, seconds=100.0 * k, utterances_per_second=12.5) for k in (1, 2, 3)]
    done = watched(tmp_path / "a", event("start"), *epochs)
    assert done.seconds_left() == pytest.approx(7 * 100)
    half = watched(tmp_path / "b", event("start"), *epochs, event("progress", epoch=4, done=500))
    assert half.seconds_left() == pytest.approx((7 - 0.4) * 100)
    dev = watched(tmp_path / "c", event("start"), *epochs, event("progress", epoch=4, phase="dev", done=100, total=400))
    assert dev.seconds_left() == pytest.approx((7 - 0.8 - 0.2 / 4) * 100)
    assert "11 min of training, until " in shown([done])


def test_a_slow_first_epoch_does_not_count_for_the_rest(tmp_path):
    ends = (1000, 1010, 1020, 1030, 1040, 1050)
    run = watched(
        tmp_path / "run", event("start"), *[event("epoch", epoch=k, seconds=s) for k, s in enumerate(ends, 1)]
    )
    assert run.seconds_left() == pytest.approx(40)


def test_time_left_is_unknown_until_an_epoch_is_done_and_after_the_last(tmp_path):
    begun = watched(tmp_path / "a", event("start"), event("progress"))
    assert begun.seconds_left() is None and "unknown until an epoch is done" in shown([begun])
    for last in (event("stop"), event("error"), event("end")):
        ended = watched(tmp_path / last["event"], event("start"), *training(3), last)
        assert ended.seconds_left() is None and "left " not in shown([ended])
    assert watched(tmp_path / "b", event("start"), *training(10)).seconds_left() is None
    assert watched(tmp_path / "c", event("start"), event("epoch", seconds=None)).seconds_left() is None
    assert watched(tmp_path / "d", *training(3)).seconds_left() is None  # the start event is missing


def silent_since(run: RunStatus, written: float, logged: float) -> float:
    """`seconds_silent` for a file and an event of these ages in seconds."""
    now = time.time()
    run.log.modified, run.log.last = now - written, event("progress", now - logged)
    return run.seconds_silent(now)


def test_silence_needs_both_clocks_to_agree(tmp_path):
    run = watched(tmp_path / "run", event("start"))
    assert silent_since(run, 3600, 1800) == pytest.approx(1800, abs=5)
    assert silent_since(run, 5, 36_000) == pytest.approx(5, abs=5)  # the trainer's clock is behind
    assert silent_since(run, 36_000, -3600) < 5  # or ahead: no warning from a negative age
    assert silent_since(run, -3600, -7200) < 5


def test_a_log_that_was_seen_to_grow_is_timed_by_this_process(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", event("start"))
    run, clock = RunStatus(folder), SimpleNamespace(now=1000.0)
    monkeypatch.setattr(status.time, "monotonic", lambda: clock.now)
    run.refresh()
    with (folder / "log.jsonl").open("ab") as file:
        file.write(lines(event("progress", 5.0)))  # from a clock in 1970
    clock.now += 60
    run.refresh()
    clock.now += 30
    assert run.seconds_silent(time.time()) == 30 and run.warnings(time.time()) == []
    clock.now += 700
    run.refresh()
    assert run.warnings(time.time()) == ["no progress for 12 minutes: is it still running?"]


@pytest.mark.parametrize(
    ("gap", "silence", "warned"), [(30, 590, False), (30, 610, True), (400, 1100, False), (400, 1300, True)]
)
def test_a_warning_comes_after_ten_minutes_or_thrice_the_usual_gap(tmp_path, gap, silence, warned):
    now = time.time()
    run = watched(tmp_path / "run", *[event("progress", now - silence - gap * k) for k in (3, 2, 1, 0)])
    run.log.modified = 0.0
    assert run.warnings(now) == (
        [f"no progress for {silence / 60:.0f} minutes: is it still running?"] if warned else []
    )
    run.log.last = event("end", now - silence)
    assert run.warnings(now) == []


def test_what_is_odd_is_said(tmp_path):
    now = time.time()
    run = watched(
        tmp_path / "run", event("start", now + 7200), event("error", now + 7200, message="disk\nfull \x1b[31m")
    )
    with (run.folder / "log.jsonl").open("ab") as file:
        file.write(b"<<<<\n\x00\x00\n")
    run.refresh()
    (run.folder / "log.jsonl").unlink()
    run.refresh()
    assert run.warnings(now) == [
        "log.jsonl cannot be read now (No such file or directory); the values shown were read before",
        "2 lines of log.jsonl are not valid and were skipped",
        "clocks differ: the last event is 2 h 0 min ahead of this machine",
        r"failed: disk full \x1b[31m",
    ]
    empty = RunStatus(tmp_path)
    empty.refresh()
    assert empty.warnings(now) == ["log.jsonl cannot be read now (No such file or directory); nothing is known yet"]


# ----------------------------------------------------------------------------------------------------- folders and GPUs


def test_a_folder_stands_for_the_runs_in_it_the_newest_first(tmp_path):
    make_run(tmp_path / "old", event("start", 1e9))
    make_run(tmp_path / "several" / "new", event("start", 2e9), event("end"))
    (tmp_path / "no run").mkdir()
    runs = {}
    assert [run.name for run in refresh_runs(runs, [tmp_path])] == ["new", "old"]
    make_run(tmp_path / "starting").joinpath("log.jsonl").unlink()
    make_run(tmp_path / "other" / "old", event("start", 3e9))
    names = [run.name for run in refresh_runs(runs, [tmp_path, tmp_path / "old"])]
    assert names == ["starting", str(tmp_path / "other" / "old"), "new", str(tmp_path / "old")]
    for path in tmp_path.rglob("log.jsonl"):
        path.unlink()
    for path in tmp_path.rglob("config.conf"):
        path.unlink()
    assert len(refresh_runs(runs, [tmp_path])) == 4  # a run that was found once stays, whatever the listing says
    with pytest.raises(UserError, match="contains no run"):
        refresh_runs(runs, [tmp_path / "no run"])


def test_gpus_are_this_machines(monkeypatch):
    class NVMLError(Exception):
        pass

    def rates(device):
        if device == 1:
            raise NVMLError("Not Supported")
        return SimpleNamespace(gpu=87)

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda device: "NVIDIA H100",
        nvmlDeviceGetMemoryInfo=lambda device: SimpleNamespace(used=3 << 30, total=80 << 30),
        nvmlDeviceGetUtilizationRates=rates,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert gpu_status() == [
        "GPU 0 of this machine: NVIDIA H100, 3.0 GiB of 80.0 GiB, 87 % busy",
        "GPU 1 of this machine: NVIDIA H100, 3.0 GiB of 80.0 GiB, Not Supported",
    ]
    fake.nvmlDeviceGetCount = lambda: rates(1)
    assert gpu_status() == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_status() == []


@pytest.mark.parametrize(("device", "installed", "said"), [("nvidia0", 0, 1), ("nvidia0", 1, 0), ("nvidiactl", 0, 0)])
def test_a_gpu_that_cannot_be_shown_is_mentioned(tmp_path, monkeypatch, device, installed, said):
    (tmp_path / device).touch()
    monkeypatch.setattr(status, "DEVICES", tmp_path)
    monkeypatch.setattr(status, "find_spec", lambda name: installed or None)
    assert ("pip install nvidia-ml-py" in str(missing_gpu_package())) is bool(said)


# -------------------------------------------------------------------------------------------------------- what is shown


def test_everything_about_a_run_is_shown(tmp_path):
    now = time.time()
    evals = [event("eval", now), event("eval", now, checkpoint="swa", min_tdcf=None)]
    epochs = [one | {"peak_memory_bytes": 3 << 30} for one in training(10, since=now - 700)]
    progress = event("progress", now, epoch=10, phase="eval", done=200, total=800, utterances_per_second=321.0)
    folder = make_run(tmp_path / "run", event("start", now), *epochs, *evals, progress, weights=("best", "swa", "last"))
    (folder / "weights" / ".best.pth.x7.pth").write_bytes(b"half")
    (folder / "weights" / "epoch_9_11.111.pth").write_bytes(b"00")
    run = RunStatus(folder)
    run.refresh()
    text = shown([run])
    for words in (
        "state      scoring eval · last event 0 s ago",
        "epoch      10 of 10 · scoring eval 200 of 800 utterances (25 %)",
        "100 %",
        "loss       0.2000 in epoch 10",
        "dev EER    10.000 % last · 10.000 % best, epoch 10",
        "dev t-DCF  0.1000 last · 0.1000 best, epoch 10",
        "speed      20 training · 321 scoring, utterances/s",
        "best: EER 3.000 %, min t-DCF 0.0800",
        "swa: EER 3.000 %\n",
        "best 2.0 KiB, 0 s ago · swa 2.0 KiB, 0 s ago · last 2.0 KiB, 0 s ago",
        "epoch_9_11.111 2 B",
        "3.0 GiB at most",
    ):
        assert words in text, text
    assert "half" not in text and ".best" not in text


def test_the_best_epoch_is_the_later_of_equal_ones(tmp_path):
    epochs = [
        event("epoch", epoch=k, dev_eer_percent=eer, dev_min_tdcf=None)
        for k, eer in ((1, 9.0), (2, 3.0), (3, 3.0), (4, 5.0))
    ]
    text = shown([watched(tmp_path / "run", event("start"), *epochs)])
    assert "5.000 % last · 3.000 % best, epoch 3" in text and "t-DCF" not in text


@pytest.mark.parametrize("width", [20, 40, 41, 80, 200])
@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_it_fits_any_width(tmp_path, width, unicode, count):
    names = ("LA_AASIST_ep100_bs24_seed1", "LA_中文_ep100_bs24_" + "x" * 50, "ä" * 30)
    logs = ([event("start"), *training(9)], [event("start")], [event("start"), *training(10), event("end")])
    runs = [watched(tmp_path / name, *log) for name, log in zip(names[:count], logs, strict=False)]
    text = shown(runs, width, unicode=unicode)
    assert max(map(display_width, text.split("\n"))) <= max(width, 40)
    assert ("⠉" in text) == unicode
    head = next(line for line in text.split("\n") if line.startswith("run")) if count == 3 else ""
    assert not head or ("state" in head) == (width >= 40)


def test_a_table_is_aligned_and_lacks_what_nobody_has(tmp_path):
    first = watched(tmp_path / "中文", event("start"), *training(3))
    second = watched(tmp_path / "b", event("start"), event("progress"))
    rows = table([table_row(one, 1e9) for one in (first, second)], 120, LEFT_ALIGNED, SPARE)
    assert len({display_width(row) for row in rows}) == 1
    heads, cells = (re.split(" {2,}", row) for row in rows[:2])
    assert dict(zip(heads[1:], cells[1:], strict=True)) == {
        "state": "training !", "epoch": "4/10", "left": "7 min", "loss": "0.6667", "EER %": "33.333", "t-DCF": "0.3333",
        "best EER %": "33.333 (3)", "best t-DCF": "0.3333 (3)", "train/s": "20", "score/s": "80",
    }  # fmt: skip
    assert "best" not in table([table_row(second, 1e9)], 120, LEFT_ALIGNED, SPARE)[0]


def test_names_and_messages_cannot_command_the_terminal(tmp_path):
    run = watched(
        tmp_path / "a\x1b[2J\u202e\nb", event("start"), event("error", message="\x1b]0;x\x07\r\x9b31m" + "m" * 60_000)
    )
    other = watched(tmp_path / "other", event("start"))
    for runs in ([run], [run, other]):
        text = shown(runs)
        assert not {sign for sign in text if not sign.isprintable()} - {"\n"}


def test_garbage_never_ends_in_a_traceback(tmp_path):
    chance, values = (
        random.Random(5),
        [0, 1, 3, 10, 10_000, 2**52, 9e17, 1e-300, 0.5, None, True, "x", "best", "dev", {}],
    )
    path = make_run(tmp_path / "run") / "log.jsonl"
    for _ in range(200):
        made = [event(chance.choice([*EVENTS, "epoch", "progress"])) for _ in range(chance.randrange(1, 12))]
        for one in made:
            for key in chance.sample(list(one)[1:], min(2, len(one) - 1)):
                one[key] = chance.choice(values)
        path.write_bytes(lines(*made))
        run = RunStatus(path.parent)
        run.refresh()
        for runs in ([run], [run, run]):
            shown(
                runs, chance.choice([20, 40, 100]), chance.choice([0.0, 1e9, time.time(), 4e9]), chance.random() < 0.5
            )
