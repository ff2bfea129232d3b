import csv
import json

import pytest

from common.errors import UserError
from scoring.results import ResultsFile, process_part_path, write_csv, write_scores

HEADER = {"schema": "s", "model": {"sha256": "x"}}


def result(file: str, score: float | None = 1.5, **more) -> dict:
    return {"file": file, "utt_id": file.split(".")[0], "score": score, "conditions": [], "regions": []} | more


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
    results = ResultsFile(path, HEADER)
    kept = list(results.offsets)
    assert files(path) == kept == ["a", "b", "c"][: len(kept)]
    assert len(kept) >= 2
    results.append(result("d"))
    assert files(path) == [*kept, "d"]


def test_results_of_another_scoring_are_not_mixed_in(tmp_path):
    path = tmp_path / "r.json"
    ResultsFile(path, HEADER).append(result("a"))
    with pytest.raises(UserError, match="r.json is there"):
        ResultsFile(path, HEADER | {"schema": "t"})
    assert files(path) == ["a"]
    ResultsFile(path, HEADER, overwrite=True)
    assert files(path) == []
    path.write_text("my thesis\n")
    with pytest.raises(UserError, match="is there"):
        ResultsFile(path, HEADER)
    assert path.read_text() == "my thesis\n"


def test_parts_of_processes_are_merged_in_order(tmp_path):
    path = tmp_path / "r [1].json"
    results = ResultsFile(path, HEADER)
    results.append(result("b"))
    for rank, names in enumerate((["a", "d"], ["b", "c"])):
        part = ResultsFile(process_part_path(path, rank), HEADER)
        for name in names:
            part.append(result(name))
    results.merge_parts("abcd")
    assert files(path) == ["b", "a", "c", "d"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["r [1].json"]


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
