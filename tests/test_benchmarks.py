"""benchmarks/all.py: a part that fails is named and the others go on; nothing in the folder is forgotten."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The module, whose own sys.path does not stay."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location("all_benchmarks", FOLDER / "all.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(command: list[str]) -> tuple[int, str, str]:
    """What the processes of three parts end with: an error, no end, rows."""
    part = command[-1]
    if part == "page":
        raise subprocess.TimeoutExpired(command, 1)
    if part == "files":
        return 1, "", "Traceback …\nfoo.BarError: no | speech\n  call log\n"
    return 0, f"note\n{json.dumps([[part, '2 s', '4 s, plain', 2.0, '']])}\n", ""


def test_what_a_part_started_ends_with_it(benchmark):
    code, out, _ = benchmark.ended(["bash", "-c", "sleep 600 > /dev/null 2>&1 & echo $!"])
    stat, deadline = Path(f"/proc/{out.strip()}/stat"), time.monotonic() + 60
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert code == 0


@pytest.mark.parametrize("markdown", [True, False])
def test_a_part_that_fails_is_named_and_the_others_go_on(benchmark, markdown, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "ended", answers)
    arguments = ["all.py", "--parts", "engines", "files", "page", "ssl", *["--markdown"] * markdown]
    monkeypatch.setattr(sys, "argv", arguments)
    assert benchmark.main() == 1
    out, err = capsys.readouterr()
    assert "failed: files, page" in err and "BarError" in err
    reason = r"foo.BarError: no \| speech" if markdown else "foo.BarError: no | speech"
    assert reason in out and "not done after" in out
    rows = [line for line in out.splitlines() if "4 s, plain" in line]
    assert len(rows) == 2 and all("2.00" in row for row in rows)
    if markdown:
        lines = [line for line in out.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {6}


def test_every_benchmark_is_in_the_table_or_said_not_to_be(benchmark):
    for module, parts in benchmark.PARTS.items():
        functions = {
            node.name for node in ast.parse((FOLDER / f"{module}.py").read_text()).body if hasattr(node, "name")
        }
        assert set(parts) <= functions
    text = "".join((FOLDER / f"{module}.py").read_text() for module in benchmark.PARTS)
    commands = {path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text()} - {"all"}
    measured = {name for name in commands if re.search(rf"import {name}\b|from {name} import|\b{name}\.py\b", text)}
    assert set(benchmark.NOT_SPEED) <= commands
    assert commands - measured <= set(benchmark.NOT_SPEED)
