import csv
import json
import os
from pathlib import Path

import pytest

from common.errors import UserError
from scoring.results import ResultsFile, process_part_path, write_csv, write_scores
from scoring.verdict import SCHEMA, FileResult

HEADER = {"schema": SCHEMA, "model": {"sha256": "x"}}
OTHER = HEADER | {"model": {"sha256": "y"}}


def result(file: str, score: float | None = 1.5, **more) -> dict:
    return FileResult(Path(file), score=score).to_dict() | more


def reopened(results: ResultsFile, header: dict = HEADER, **options) -> ResultsFile:
    results.close()
    return ResultsFile(results.path, header, **options)


def files(path) -> list[str]:
    document = json.loads(path.read_bytes())
    assert {key: document[key] for key in HEADER} == HEADER
    return [item["file"] for item in document["results"]]


def test_document_is_whole_after_every_result(tmp_path):
    path = tmp_path / "deep" / "r.json"
    results = ResultsFile(path, HEADER)
    assert files(path) == []
    for count, name in enumerate(("a.wav", "ü\ud800.wav", 'quote".wav'), 1):
        results.append(result(name))
        assert len(files(path)) == count
    assert [item["file"] for item in results.read(['quote".wav', "a.wav"])] == ['quote".wav', "a.wav"]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_half_written_line_is_cut_off(tmp_path, cut):
    path = tmp_path / "r.json"
    results = ResultsFile(path, HEADER)
    for name in "abc":
        results.append(result(name))
    path.write_bytes(path.read_bytes()[:-cut])
    results = reopened(results)
    kept = list(results.offsets)
    assert files(path) == kept == ["a", "b", "c"][: len(kept)]
    assert len(kept) >= 2
    results.append(result("d"))
    assert files(path) == [*kept, "d"]


BROKEN = {
    "no JSON": b"{",
    "NULs": b"\0" * 40,
    "no UTF-8": b'"\xff"',
    "no mapping": b"[1]",
    "deep": b"[" * 100_000,
    "NaN": json.dumps(result("b", float("nan"))).encode(),
    "text as score": json.dumps(result("b", "1.5")).encode(),
    "nameless condition": json.dumps(result("b", conditions=[{}])).encode(),
    "regions": json.dumps(result("b", regions=[3])).encode(),
    **{f"no {key}": json.dumps({k: v for k, v in result("b").items() if k != key}).encode()
       for key in ("file", "utt_id", "verdict", "score", "seconds", "conditions", "regions", "error")},
}  # fmt: skip


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_is_no_result_is_left_out(tmp_path, line, place):
    path = tmp_path / "r.json"
    results = ResultsFile(path, HEADER)
    for name in "ac":
        results.append(result(name))
    head, *lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(place, b"," * bool(place) + line + b"\n")
    path.write_bytes(head + b"".join(lines))
    results = reopened(results)
    assert files(path) == list(results.offsets) == ["a", "c"]
    assert [item["file"] for item in results.read("ca")] == ["c", "a"]


@pytest.mark.parametrize("dropped", ["a", "b", "d", "ab", "ad", "abcd", ""])
def test_results_are_dropped(tmp_path, dropped):
    path = tmp_path / "r.json"
    results = ResultsFile(path, HEADER)
    for number, name in enumerate("abcd"):
        results.append(result(name, probability_note="x" * 5000 * number))
    results.drop(set(dropped))
    kept = [name for name in "abcd" if name not in dropped]
    assert files(path) == list(results.offsets) == kept
    results.append(result("e"))
    assert files(path) == [*kept, "e"]
    assert list(reopened(results).offsets) == [*kept, "e"]


@pytest.mark.parametrize("moved", range(1, 4))
def test_a_kill_while_results_are_dropped_loses_no_truth(tmp_path, moved, monkeypatch):
    path = tmp_path / "r.json"
    results = ResultsFile(path, HEADER)
    for number, name in enumerate("abcde"):
        results.append(result(name, number, probability_note="x" * 100 * number))
    calls, pwrite = [], os.pwrite

    def killed(handle, data, at):
        calls.append(at)
        if len(calls) > moved:
            raise KeyboardInterrupt
        return pwrite(handle, data[: len(data) // 2] if len(calls) == moved else data, at)

    monkeypatch.setattr(os, "pwrite", killed)
    with pytest.raises(KeyboardInterrupt):
        results.drop("a")
    monkeypatch.undo()
    results = reopened(results)
    kept = list(results.offsets)
    assert files(path) == kept and "a" not in kept and len(kept) >= moved - 1
    assert [item["score"] for item in results.read(kept)] == ["abcde".index(name) for name in kept]


def test_a_document_of_an_earlier_schema_is_not_continued(tmp_path):
    ResultsFile(tmp_path / "r.json", HEADER | {"schema": "aasist.inference/1"}).close()
    with pytest.raises(UserError, match=r"r\.json is there \(--overwrite\?\).* found those of another version"):
        ResultsFile(tmp_path / "r.json", HEADER)


def test_results_of_another_scoring_are_not_mixed_in(tmp_path, capsys):
    path = tmp_path / "r.json"
    results = ResultsFile(path, HEADER)
    results.append(result("a"))
    with pytest.raises(UserError, match=r"r\.json is there"):
        reopened(results, OTHER)
    assert files(path) == ["a"] and not capsys.readouterr().err
    results = ResultsFile(path, HEADER, overwrite=True)
    assert files(path) == []
    for name in "ab":
        results.append(result(name))
    results.close()
    results = ResultsFile(path, OTHER, ours=True)  # a journal
    assert results.offsets == {} and "other settings: starting anew" in capsys.readouterr().err
    results.close()
    path.write_text("my thesis\n")
    with pytest.raises(UserError, match="no such file, found another file"):
        ResultsFile(path, HEADER, overwrite=True)
    for ours in (False, True):
        with pytest.raises(UserError, match="is there"):
            ResultsFile(path, HEADER, ours=ours)
    assert path.read_text() == "my thesis\n"


def test_a_document_has_one_writer(tmp_path):
    results = ResultsFile(tmp_path / "r.json", HEADER)
    with pytest.raises(UserError, match=r"r\.json is in use"):
        ResultsFile(tmp_path / "r.json", HEADER, overwrite=True)
    reopened(results).remove()
    assert not any(tmp_path.iterdir())


def write_part(path, rank: int, names: str, header: dict = HEADER) -> None:
    part = ResultsFile(process_part_path(path, rank), header)
    for name in names:
        part.append(result(name, rank))
    part.close()


def test_parts_of_processes_are_merged_in_order(tmp_path):
    path = tmp_path / "r [1].json"
    results = ResultsFile(path, HEADER)
    results.append(result("b"))
    for rank, names in enumerate(("adx", "bc")):
        write_part(path, rank, names)
    results.merge_parts("abcd")
    assert files(path) == ["b", "a", "c", "d", "x"]  # x: of a longer list
    assert [entry.name for entry in tmp_path.iterdir()] == ["r [1].json"]


def test_parts_of_another_job_are_not_gathered(tmp_path, capsys):
    path, mine = tmp_path / "r.json", tmp_path / "r.json.part2.txt"
    mine.write_text("my thesis\n")
    results = ResultsFile(path, HEADER)
    write_part(path, 0, "a", OTHER)
    write_part(path, 7, "b")
    results.merge_parts("ab")
    assert files(path) == ["b"] and "part0 is of another model or other settings" in capsys.readouterr().err
    for rank, header in enumerate((HEADER, OTHER)):
        write_part(path, rank, "c", header)
    results = reopened(results, OTHER, overwrite=True)
    results.merge_parts("abc")
    assert files_of(path) == [] and sorted(tmp_path.iterdir()) == [path, mine]


def files_of(path) -> list[str]:
    return [item["file"] for item in json.loads(path.read_bytes())["results"]]


@pytest.mark.parametrize("written", [0, 1, 100, 100_000])
def test_on_a_full_disk_the_document_stays_whole(tmp_path, monkeypatch, written):
    """The disk takes so many bytes more."""
    path, pwrite = tmp_path / "r.json", os.pwrite
    results = ResultsFile(path, HEADER)
    results.append(result("a"))
    room = path.stat().st_size + written

    def write(handle, data, at):
        if data and at >= room:
            raise OSError(28, "No space left on device")
        return pwrite(handle, data[: max(0, room - at)], at)

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(UserError, match=r"cannot write .*r\.json: No space left on device"):
        for number in range(1000):
            results.append(result(f"b{number}"))
    assert files(path) == list(results.offsets) and (written > 1000) == (len(results.offsets) > 1)
    room += 1000
    results.append(result("c"))
    assert files(path)[-1] == "c"


def test_csv_and_scores(tmp_path):
    region = {"start": 1.0, "end": 5.037, "score": -3.0}
    conditions = [{"name": "clipped", "detail": ""}, {"name": "short", "detail": ""}]
    rows = [result("a,1.wav", 0.1 + 0.2, regions=[region, region], conditions=conditions), result("b.wav", None)]
    write_csv(tmp_path / "r.csv", rows)
    with (tmp_path / "r.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table[0]["file"] == "a,1.wav" and float(table[0]["score"]) == 0.1 + 0.2
    assert table[0]["regions"] == "1.00-5.04;1.00-5.04" and table[0]["conditions"] == "clipped;short"
    assert table[1]["score"] == ""
    assert write_scores(tmp_path / "s.txt", rows) == ["b.wav"]
    assert (tmp_path / "s.txt").read_text() == "a,1 0.30000000000000004\n"
