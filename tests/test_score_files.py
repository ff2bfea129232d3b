"""Score files, protocols and ASV scores in every form; bad ones end in one line that names the place."""

import gzip
import re
import time
import tracemalloc

import numpy as np
import pytest
from made_scores import SHARED, command, lines_of, needs_shared, toy

import evaluation as ev
from common import text_files
from common.errors import UserError

PROTOCOLS = {
    "asvspoof2019": "{p} {u} - {a} {k}",
    "utt key": "{u} {k}",
    "asvspoof2021 LA": "{p} {u} alaw ita_tx {a} {k} notrim eval",
    "asvspoof2021 DF": "{p} {u} nocodec asvspoof {a} {k} notrim eval vocoder - - - -",
    "asvspoof5": "{p} {u} F - - - AC1 {a} {k} -",
}


@pytest.mark.parametrize("form", PROTOCOLS.values(), ids=PROTOCOLS)
def test_two_columns_join_with_every_protocol(tmp_path, form):
    scores = toy()
    (tmp_path / "scores.txt").write_text(lines_of(scores, "{u} {s!r}"))
    (tmp_path / "protocol.txt").write_text(lines_of(scores, form))
    read = ev.read_scores(tmp_path / "scores.txt", tmp_path / "protocol.txt")
    assert (read.utt_id == scores.utt_id).all() and (read.score == scores.score).all()
    assert (read.is_bonafide == scores.is_bonafide).all() and read.warnings == []
    if "{a}" in form:
        assert (read.attack == scores.attack).all() and (read.groups["speaker"] == scores.groups["speaker"]).all()


LABELLED = ("{u} {a} {k} {s!r}", "{p} {u} - {a} {k} {s!r}", "{u} {k} {s!r}", "{u}\t{a}\t{k}\t{s!r}",
            "{p} {u} alaw ita_tx {a} {k} notrim eval {s!r}")  # fmt: skip


@pytest.mark.parametrize("form", LABELLED)
def test_labelled_score_files(tmp_path, form):
    scores = toy()
    text = lines_of(scores, form)
    variants = (text, text.replace("\n", "\r\n"), "\ufeff" + text, text.rstrip("\n"), text.replace(" - b", " A00 b"))
    for number, variant in enumerate(variants):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(variant.encode())
        read = ev.read_scores(path)
        assert (read.score == scores.score).all() and (read.is_bonafide == scores.is_bonafide).all()
        assert read.utt_id[0] == "U0000" and read.attack[0] == "-"


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("", "{p} {u} {s!r} {k}"),  # ASVspoof 5's evaluation package
        ("", "{p} {u} {k} {s!r}"),
        ("", "{u} {s!r} {k}"),
        ("file_name,score,label\n", "{u}.wav,{s!r},{k}"),
        ("audio_path,ground_truth,bonafide_score\n", "a/{u}.wav,{k},{s!r}"),
    ],
)
def test_forms_of_peers(tmp_path, head, form):
    scores = toy()
    (tmp_path / "s.txt").write_text(head + lines_of(scores, form))
    read = ev.read_scores(tmp_path / "s.txt")
    assert (read.score == scores.score).all() and (read.is_bonafide == scores.is_bonafide).all()
    assert [name.split("/")[-1].removesuffix(".wav") for name in read.utt_id.tolist()] == scores.utt_id.tolist()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Output, {u}, 1, {s!r}\n", "line 1: a log of project-NN-Pytorch-scripts — expected lines `utt key score`"),
        ("{u}.flac -{s!r} {s!r}\n", "line 1: several numbers in a score line"),
        ("{u} 1 {s!r}\n", "keys as bonafide and spoof, not 1 and 0"),
        ("what,score,label\n{u},{s!r},{k}\n", "line 1: a header without a column of utterances"),
    ],
)
def test_other_forms_are_refused_by_name(tmp_path, line, words):
    path = tmp_path / "s.txt"
    path.write_text(line.format(u="u1", s=1.5, k="spoof"))
    with pytest.raises(UserError, match=re.escape(words)):
        ev.read_scores(path)


def test_tables_with_headers(tmp_path):
    scores = toy()
    (tmp_path / "cm.tsv").write_text("filename\tcm-score\n" + lines_of(scores, "{u}\t{s!r}"))
    (tmp_path / "key.tsv").write_text("filename\tcm-label\n" + lines_of(scores, "{u}\t{k}"))
    (tmp_path / "meta.csv").write_text(
        "file,speaker,label\n" + lines_of(scores, "{u}.wav,A Name,{k}").replace("bonafide", "bona-fide")
    )
    for protocol in ("key.tsv", "meta.csv"):
        read = ev.read_scores(tmp_path / "cm.tsv", tmp_path / protocol)
        assert (read.is_bonafide == scores.is_bonafide).all() and (read.score == scores.score).all()
    assert read.groups["speaker"][0] == "A Name"


@needs_shared
def test_label_list_of_asvspoof2021(tmp_path):
    labels = [line.split() for line in (SHARED / "data" / "LA21_mini" / "labels.txt").read_text().splitlines()]
    (tmp_path / "s.txt").write_text("".join(f"{name} {row}\n" for row, (name, _) in enumerate(labels)))
    read = ev.read_scores(tmp_path / "s.txt", SHARED / "data" / "LA21_mini" / "labels.txt")
    assert read.is_bonafide.sum() == 15 and read.is_bonafide[0]


def test_sasv_table(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["spk\tfilename\tcm-score\tasv-score\tsasv-score\tcm-label\tasv-label"]
    for label, cm, asv in (("target", 2, 2), ("nontarget", 2, -2), ("spoof", -2, 1)):
        key = "spoof" if label == "spoof" else "bonafide"
        for row in range(50):
            c, a = rng.normal(cm), rng.normal(asv)
            rows.append(f"S{label}\tE_{row}{key}\t{c!r}\t{a!r}\t{min(c, a)!r}\t{key}\t{label}")
    (tmp_path / "sasv.tsv").write_text("\n".join(rows))
    sasv = ev.evaluate(ev.read_scores(tmp_path / "sasv.tsv"))["sasv"]
    assert 0 < sasv["a_dcf"] < 1 and 0 < sasv["t_eer_percent"] < 25
    assert "a-DCF" in command(tmp_path / "sasv.tsv").stdout


def test_missing_and_extra_trials_are_listed(tmp_path):
    scores = toy()
    (tmp_path / "s.txt").write_text(lines_of(scores.take(np.arange(3, 150)), "{u} {s!r}") + "X9 1.0\n")
    (tmp_path / "p.txt").write_text(lines_of(scores, "{p} {u} - {a} {k}"))
    done = command(tmp_path / "s.txt", "--protocol", tmp_path / "p.txt")
    assert done.returncode == 0
    assert "3 of 150 trials of p.txt have no score: U0000, U0001, U0002" in done.stderr
    assert "1 of 148 scores are of trials not in p.txt, left out: X9" in done.stderr
    assert "57 bona fide and 90 spoof" in done.stdout


def test_written_scores_read_back_to_the_last_bit(tmp_path):
    scores = toy()
    keys = np.where(scores.is_bonafide, "bonafide", "spoof")
    ev.write_scores(tmp_path / "s.txt", scores.utt_id, scores.attack, keys, scores.score)
    read = ev.read_scores(tmp_path / "s.txt")
    assert (read.score == scores.score).all() and (read.attack == scores.attack).all()
    with pytest.raises(UserError, match="U0003"):
        broken = np.where(np.arange(150) == 3, np.nan, 0)
        ev.write_scores(tmp_path / "t.txt", scores.utt_id, scores.attack, keys, broken)
    with pytest.raises(UserError, match="without blanks"):
        ev.write_scores(tmp_path / "t.txt", ["a b"], ["-"], ["bonafide"], [1.0])
    assert not (tmp_path / "t.txt").exists()


GOOD = "u1 - bonafide 2.0\nu2 A01 spoof -1.0\nu3 - bonafide 1.0\nu4 A02 spoof 0.0\n"
BAD_FILES = {  # name: (content, what the one line must say)
    "empty": (b"", "line 1: empty file"),
    "blank": (b"\n\n", "line 1: empty file"),
    "nan": (GOOD.replace("1.0\nu4", "nan\nu4").encode(), "line 3: bad score"),
    "inf": (GOOD.replace("-1.0", "-inf").encode(), "line 2: bad score"),
    "overflow": (GOOD.replace("2.0", "1e999").encode(), "line 1: bad score"),
    "word": (GOOD.replace("2.0", "high").encode(), "line 1: bad score — expected a finite number, found 'high'"),
    "other digits": (GOOD.replace("2.0", "٢.0").encode(), "line 1: bad score — expected a finite number, found '٢.0'"),
    "underscore": (GOOD.replace("2.0", "2_0").encode(), "line 1: bad score"),
    "key": (GOOD.replace("u2 A01 spoof", "u2 A01 forged").encode(), "line 2: unknown key"),
    "duplicate": (GOOD.replace("u3", "u1").encode(), "line 3: duplicate trial — expected each once, found u1 also"),
    "duplicate after blanks": (GOOD.replace("u3", "\n\nu1").encode(), "line 5: duplicate trial"),
    "truncated": (GOOD.encode()[:-5], "line 4: truncated line — expected 4 columns"),
    "ragged": (GOOD.replace("u2 A01", "u2").encode(), "line 2: bad line — expected 4 columns"),
    "five columns": (b"a b c d e f g\n", "line 1: no score line"),
    "one class": (b"u1 - bonafide 1\nu2 - bonafide 2\n", "lines 1–2: one class only"),
    "attack on bona fide": (GOOD.replace("u3 -", "u3 A07").encode(), "line 3: bona fide trial with an attack"),
    "no labels": (b"u1 1.0\nu2 2.0\n", "no labels — expected --protocol"),
    "gzip": (gzip.compress(GOOD.encode()), "gzip data"),
    "binary": (GOOD.encode() + b"\x00\x01\x02\n", "line 5: not text"),
    "utf-16": (GOOD.encode("utf-16"), "line 1: not text"),
    "latin-1": (GOOD.replace("u2", "é").encode("latin-1"), "line 2: not text — expected UTF-8, found byte 0xe9"),
    "header only": (b"filename\tcm-score\n", "line 2: no score lines"),
    "open quote": (b'file,label,score\nu1,bonafide,1\n"u2,spoof,0\nu3,spoof,0\n', "line 3: bad line — expected 3"),
    "header twice": (b"filename\tcm-score\tscore\nu1\t1\t2\n", "line 1: two columns mean the same"),
    "long line": (GOOD.encode() + b"u5 A01 spoof " + b"1" * 20_000, "line 5: line too long"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_score_files_end_in_one_line(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tmp_path / "scores.txt"
    path.write_bytes(content)
    done = command(path, "--json", tmp_path / "out.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr and str(path) in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_huge_file_without_a_newline_is_not_read_whole(tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(b"x" * 10)
        file.seek(2_000_000_000)
        file.write(b"x")
    path_text = tmp_path / "text.txt"
    path_text.write_bytes(b"7" * 30_000_000)
    for huge in (path, path_text):
        start = time.perf_counter()
        with pytest.raises(UserError, match="line 1"):
            ev.read_scores(huge)
        assert time.perf_counter() - start < 2


BAD_ASV = {
    "cm scores": (GOOD, "line 1: no ASV score line"),
    "unknown label": ("bonafide target 1\nbonafide imposter 2\nA07 spoof 3\n", "line 2: unknown ASV label"),
    "no spoof": ("bonafide target 1\nbonafide nontarget 2\n", "no spoof trials"),
    "bad score": ("bonafide target 1\nbonafide nontarget x\nA07 spoof 3\n", "line 2: bad score"),
    "useless": ("bonafide target 0\nbonafide nontarget 1\nA07 spoof -9\n", "do not define a t-DCF"),
}


@pytest.mark.parametrize("name", BAD_ASV)
def test_bad_asv_scores(tmp_path, name):
    content, message = BAD_ASV[name]
    (tmp_path / "asv.txt").write_text(content)
    (tmp_path / "s.txt").write_text(GOOD)
    with pytest.raises(UserError, match=re.escape(message)):
        ev.evaluate(ev.read_scores(tmp_path / "s.txt"), ev.read_asv_scores(tmp_path / "asv.txt"))


BAD_PROTOCOLS = {
    "contradiction": ("u1 spoof\nu2 spoof\nu3 bonafide\nu4 spoof\n", "line 1: key contradicts the protocol"),
    "other trials": ("x1 bonafide\nx2 spoof\n", "no trial of"),
    "duplicate": ("u1 bonafide\nu1 bonafide\nu2 spoof\n", "line 2: duplicate trial"),
    "bad key": ("u1 bonafide\nu2 0\n", "line 2: unknown key"),
    "no label": ("file,speaker\nu1,a\nu2,b\n", "no label column"),
    "columns": ("u1 bonafide x\n", "line 1: no protocol line"),
}


@pytest.mark.parametrize("name", BAD_PROTOCOLS)
def test_bad_protocols(tmp_path, name):
    content, message = BAD_PROTOCOLS[name]
    (tmp_path / "p.txt").write_text(content)
    (tmp_path / "s.txt").write_text(GOOD)
    with pytest.raises(UserError, match=re.escape(message)):
        ev.read_scores(tmp_path / "s.txt", tmp_path / "p.txt")


def test_blocks_change_nothing(tmp_path, monkeypatch):
    """Whatever the lines look like, a file read in small blocks is the file read at once, errors included."""
    rng = np.random.default_rng(0)
    kinds = ["u{n} A01 spoof {s}", "u{n} - bonafide {s}", " u{n}  A01\tspoof {s} ", "u{n}\xa0A01 spoof {s}\r", "", "  "]
    bad = ["u{n} A01 spoof", "u{n} A01 spoof 1 2", "u{n} A01 spoof x", "u{n} A01 what 1", "u0 A01 spoof 1"]
    path = tmp_path / "scores.txt"
    for trial in range(60):
        chosen = [*rng.choice(kinds[: 2 + trial % 5], 12), kinds[0], kinds[1]]
        if trial % 2:
            chosen[int(rng.integers(14))] = bad[trial % len(bad)]
        lines = [line.format(n=n, s=repr(float(rng.normal()))) for n, line in enumerate(chosen)]
        path.write_text("\n".join(lines) + "\n" * (trial % 3))
        found = []
        for block in (1 << 20, 16, 60):
            monkeypatch.setattr(text_files, "BLOCK", block)
            try:
                scores = ev.read_scores(path)
                found.append([*map(np.ndarray.tolist, (scores.utt_id, scores.score, scores.attack))])
            except UserError as error:
                found.append(str(error))
        assert found[0] == found[1] == found[2], lines


def test_memory_is_that_of_the_names(tmp_path):
    """One long name must not make all as long: numpy's str arrays give each cell the length of the longest."""
    rows = [f"u{row} {'A' * 9000 if row == 7 else 'A01'} spoof 1.5\nv{row} - bonafide 2.5\n" for row in range(20_000)]
    path = tmp_path / "scores.txt"
    path.write_text("".join(rows))
    tracemalloc.start()
    ev.read_scores(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 24e6  # 15 MB; a str array of the attacks alone had 1.4 GB
