"""Data sets in their published layouts: the right trials and files, or one line that says what is wrong."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from conftest import assert_user_error, events, mini, run_command, scored, the_run, train_mini
from forks import Command

from common.errors import UserError
from corpora.asvspoof import ASVspoof2019
from corpora.open import KINDS, open_data_set, open_eval_sets, open_partition
from corpora.trials import Trial
from data_utils import preflight
from training.log_reader import LogReader


def write(path: Path, text: str | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def touch(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name)
    return root


def make_2019(root: Path, track: str = "LA") -> Path:
    for number, (name, kind) in enumerate({"train": "trn", "dev": "trl", "eval": "trl"}.items()):
        letter, environment = name[0].upper(), "-" if track == "LA" else "aaa"
        ids = [f"{track}_{letter}_{1000137 + number}", f"{track}_{letter}_{1000147 + number}"]
        lines = f"{track}_0079 {ids[0]} {environment} - bonafide\n"
        lines += f"{track}_0078 {ids[1]} {environment} A0{number + 1} spoof\n"
        write(root / f"ASVspoof2019_{track}_cm_protocols" / f"ASVspoof2019.{track}.cm.{name}.{kind}.txt", lines)
        touch(root / f"ASVspoof2019_{track}_{name}" / "flac", *(f"{utt_id}.flac" for utt_id in ids))
    return root


def make_2021_la(root: Path) -> Path:
    rows = [
        "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
        "LA_0020 LA_E_6866159 g722 loc_tx bonafide bonafide notrim eval",
        "LA_0041 LA_E_5464494 none - A08 spoof notrim progress",
        "LA_0001 LA_E_1100001 gsm sin_tx bonafide bonafide trim hidden",
    ]
    write(root / "keys" / "LA" / "CM" / "trial_metadata.txt", "\n".join(rows))
    return touch(root / "ASVspoof2021_LA_eval" / "flac", *(f"{row.split()[1]}.flac" for row in rows)).parents[1]


def make_2021_df(root: Path) -> Path:
    rows = [
        "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -",
        "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval waveform_concatenation Task1 team20 FF E",
        "TGF1 DF_E_2000024 mp3m4a vcc2020 - bonafide notrim eval bonafide - - - -",
    ]
    write(root / "DF-keys-full" / "keys" / "DF" / "CM" / "trial_metadata.txt", "\n".join(rows))
    for part, row in enumerate(rows):
        folder = root / f"ASVspoof2021_DF_eval_part0{part}" / "ASVspoof2021_DF_eval" / "flac"
        touch(folder, f"{row.split()[1]}.flac")
    return root


def make_2021_pa(root: Path) -> Path:
    rows = [
        "PA_0010 PA_E_1000001 R3 M2 d4 r1 m1 s4 c4 spoof notrim eval",
        "PA_0011 PA_E_1000002 R1 M3 d2 - - - - bonafide notrim eval",
        "PA_0012 PA_E_1000003 R1 M3 d2 - - - - bonafide trim hidden",
    ]
    write(root / "keys" / "PA" / "CM" / "trial_metadata.txt", "\n".join(rows))
    return touch(root / "flac", *(f"{row.split()[1]}.flac" for row in rows)).parent


def make_5(root: Path) -> Path:
    lines = {
        "train": "T_4850 T_0000000000 F - - - AC3 A05 spoof -\nT_4850 T_0000000007 F - - - - bonafide bonafide -\n",
        "dev.track_1": "D_0062 D_0000000001 F - - - AC1 A11 spoof -\n"
        "D_0755 D_0000000022 F - - - - bonafide bonafide -\n",
        "eval.track_1": "E_1607 E_0009538969 M C05 2 E_0009486171 AC1 A26 spoof -\n"
        "E_3614 E_0009249152 F - - - - bonafide bonafide -\n",
    }
    for name, text in lines.items():
        write(root / "ASVspoof5_protocols" / f"ASVspoof5.{name}.tsv", text)
    touch(root, "flac_T_aa/flac_T/T_0000000000.flac", "flac_T_ab/flac_T/T_0000000007.flac")
    touch(root, "flac_D/D_0000000001.flac", "flac_D/D_0000000022.flac")
    return touch(root, "flac_E_eval/E_0009538969.flac", "flac_E_aj/flac_E_eval/E_0009249152.flac")


def make_itw(root: Path) -> Path:
    labels = "file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,Barack Obama,bona-fide\n"
    write(root / "release_in_the_wild" / "meta.csv", labels)
    return touch(root / "release_in_the_wild", "0.wav", "1.wav").parent


def make_wavefake(root: Path) -> Path:
    touch(root / "generated_audio", "ljspeech_melgan/LJ001-0001_gen.wav", "jsut_parallel_wavegan/B_1_gen.wav")
    return touch(root, "LJSpeech-1.1/wavs/LJ001-0001.wav", "LJSpeech-1.1/README", "jsut_ver1.1/basic5000/wav/B_1.wav")


def make_folder(root: Path) -> Path:
    for part in ("training", "validation", "testing"):
        touch(root, f"{part}/real/file1.wav_16k.wav", f"{part}/fake/file1.wav_16k.wav", f"{part}/fake/notes.txt")
    return root


def make_csv(root: Path) -> Path:
    elsewhere = touch(root / "elsewhere", "far.flac") / "far.flac"
    touch(root / "mine", "a/1.wav", "a/2.wav", "3.mp3")
    lines = [
        "path,label,speaker,attack,partition,device",
        "a/1.wav,real,anna,,train,phone",
        "a/2.wav,Fake,,tts1,training,phone",
        "3.mp3,bona-fide,ben,-,dev,desk",
        f"{elsewhere},spoof,ben,tts2,Validation,desk",
    ]
    return write(root / "mine" / "list.csv", "\ufeff" + "\r\n".join(lines) + "\r\n")


def real(utt_id: str, speaker: str = "-") -> Trial:
    return Trial(utt_id, speaker, "-", "bonafide")


def fake(utt_id: str, speaker: str = "-", attack: str = "-") -> Trial:
    return Trial(utt_id, speaker, attack, "spoof")


def of_2019(track: str) -> dict[str, list[Trial]]:
    numbers = {"train": ("T", 7, 1), "dev": ("D", 8, 2), "eval": ("E", 9, 3)}
    return {
        name: [
            real(f"{track}_{letter}_100013{digit}", f"{track}_0079")._replace(source=track),
            fake(f"{track}_{letter}_100014{digit}", f"{track}_0078", f"A0{attack}")._replace(source=track),
        ]
        for name, (letter, digit, attack) in numbers.items()
    }


LA21 = [fake("LA_E_9332881", "LA_0009", "A07"), real("LA_E_6866159", "LA_0020")]
LA21 += [fake("LA_E_5464494", "LA_0041", "A08"), real("LA_E_1100001", "LA_0001")]
DF21 = [fake("DF_E_2000011", "LA_0023", "A14"), fake("DF_E_2000013", "TEF2", "Task1-team20")]
DF21 += [real("DF_E_2000024", "TGF1")]
DF21 = [trial._replace(source=source) for trial, source in zip(DF21, ("asvspoof", "vcc2020", "vcc2020"), strict=True)]
PA21 = [fake("PA_E_1000001", "PA_0010"), real("PA_E_1000002", "PA_0011"), real("PA_E_1000003", "PA_0012")]
ALL5 = {
    "train": [fake("T_0000000000", "T_4850", "A05"), real("T_0000000007", "T_4850")],
    "dev": [fake("D_0000000001", "D_0062", "A11"), real("D_0000000022", "D_0755")],
    "eval": [fake("E_0009538969", "E_1607", "A26"), real("E_0009249152", "E_3614")],
}
WAVEFAKE = [
    fake("generated_audio/jsut_parallel_wavegan/B_1_gen.wav", "-", "jsut_parallel_wavegan"),
    fake("generated_audio/ljspeech_melgan/LJ001-0001_gen.wav", "-", "ljspeech_melgan"),
    real("LJSpeech-1.1/wavs/LJ001-0001.wav"),
    real("jsut_ver1.1/basic5000/wav/B_1.wav"),
]
FAKE_OR_REAL = {
    name: [fake(f"{part}/fake/file1.wav_16k.wav"), real(f"{part}/real/file1.wav_16k.wav")]
    for name, part in (("train", "training"), ("dev", "validation"), ("eval", "testing"))
}
OWN = {
    "train": [real("a/1.wav", "anna"), fake("a/2.wav", "-", "tts1")],
    "dev": [real("3.mp3", "ben"), fake("{root}/elsewhere/far.flac", "ben", "tts2")],
}
# kind: how it is made, {partition: its trials}, what results are called
PUBLISHED: dict[str, tuple[Callable[[Path], Path], dict[str, list[Trial]], str]] = {
    "2019": (make_2019, of_2019("LA"), "asvspoof2019"),
    "2019PA": (lambda root: make_2019(root / "PA", "PA").parent, of_2019("PA"), "asvspoof2019_pa"),
    "2021": (make_2021_la, {"eval": LA21[:2], "all": LA21}, "asvspoof2021_la"),
    "2021DF": (make_2021_df, {"eval": DF21[1:], "all": DF21}, "asvspoof2021_df"),
    "2021PA": (make_2021_pa, {"eval": PA21[:2], "all": PA21}, "asvspoof2021_pa"),
    "asvspoof5": (make_5, ALL5, "asvspoof5"),
    "itw": (make_itw, {"eval": [fake("0.wav", "Alec Guinness"), real("1.wav", "Barack Obama")]}, "in_the_wild"),
    "wavefake": (make_wavefake, {"eval": WAVEFAKE}, "wavefake"),
    "folder": (make_folder, FAKE_OR_REAL, "set"),
    "csv": (make_csv, OWN, "list"),
}


def test_every_kind_has_a_sample():
    assert PUBLISHED.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", PUBLISHED)
def test_the_published_layout(kind, tmp_path):
    make, expected, title = PUBLISHED[kind]
    corpus = open_data_set(f"{kind}:{make(tmp_path / 'set')}")
    assert (corpus.partitions, corpus.title) == (tuple(expected), title)
    for name, trials in expected.items():
        partition = corpus.partition(name)
        trials = [t._replace(utt_id=t.utt_id.format(root=tmp_path / "set")) for t in trials]
        assert partition.trials == trials and list(partition.files) == [trial.utt_id for trial in trials]
        assert partition.missing() == [] and all(partition.path(trial).is_file() for trial in trials)
        assert partition.name == name and partition.labels.exists() and partition.asv_scores() is None
        assert all(len(column) == len(trials) for column in partition.groups.values())
        (note,) = [each for each in preflight([partition], "LA") if "left out" not in each] or [None]
        assert (note is None) == (partition.official_count is None)
        rows = np.array([len(trials) - 1, 0])
        taken = partition.take(rows)
        assert taken.trials == [trials[row] for row in rows] and list(taken.files) == [t.utt_id for t in taken.trials]
        partition.path(trials[0]).unlink()
        with pytest.raises(UserError, match=f"{name} lacks audio.* 1 missing: {trials[0].utt_id}$"):
            preflight([partition], "LA")
        if kind not in ("folder", "wavefake"):  # in which a file that is gone is no trial
            with pytest.raises(UserError, match=f"{name} lacks audio"):
                preflight([open_data_set(f"{kind}:{corpus.root}").partition(name)], "LA")
        touch(partition.path(trials[0]).parent, partition.path(trials[0]).name)
    for name in {"train", "dev", "eval"} - expected.keys():
        with pytest.raises(UserError, match=f"no {name} partition in .* expected {' or '.join(expected)}"):
            corpus.partition(name)


def test_further_columns_are_groups(tmp_path):
    groups = open_data_set(f"2021:{make_2021_la(tmp_path / 'a')}").partition("eval").groups
    assert {name: column.tolist() for name, column in groups.items()} == {
        "codec": ["alaw", "g722"],
        "transmission": ["ita_tx", "loc_tx"],
        "trim": ["notrim", "notrim"],
        "subset": ["eval", "eval"],
    }
    groups = open_data_set(f"asvspoof5:{make_5(tmp_path / 'b')}").partition("eval").groups
    assert groups["codec"].tolist() == ["C05", "-"]
    groups = open_data_set(f"csv:{make_csv(tmp_path / 'c')}").partition("dev").groups
    assert groups["device"].tolist() == ["desk"] * 2


def test_asv_scores_come_with_their_partition(tiny_corpus, tmp_path):
    scores = ASVspoof2019(tiny_corpus).partition("eval").asv_scores()
    assert scores is not None and ASVspoof2019(tiny_corpus).partition("train").asv_scores() is None
    root = make_2021_la(tmp_path)
    folder = root / "keys" / "LA" / "ASV"
    rows = [("bonafide", "target", 5.0), ("bonafide", "nontarget", -3.0), ("A07", "spoof", 4.0)]
    keys = [f"LA_0009 LA_E_{i} none none {attack} {key} notrim eval\n" for i, (attack, key, _) in enumerate(rows)]
    write(folder / "trial_metadata.txt", "".join(keys))
    write(
        folder / "ASVTorch_Kaldi" / "score.txt", "".join(f"LA_0009 LA_E_{i} {row[2]}\n" for i, row in enumerate(rows))
    )
    assert open_data_set(f"2021:{root}").partition("eval").asv_scores().target.tolist() == [5.0]


@pytest.mark.parametrize(("words", "other"), [(("genuine", "SPOOF"), None), (("Human", "fake"), "notes")])
def test_folders_of_classes_in_other_words(tmp_path, words, other):
    touch(tmp_path, f"{words[0]}/deep/er/1.WAV", f"{words[1]}/1.flac", f"{words[1]}/.DS_Store")
    if other:
        touch(tmp_path, f"{other}/2.wav")
    trials = open_data_set(f"folder:{tmp_path}").partition("eval").trials
    assert {(trial.utt_id, trial.key) for trial in trials} == {
        (f"{words[0]}/deep/er/1.WAV", "bonafide"),
        (f"{words[1]}/1.flac", "spoof"),
    }


def test_a_folder_with_labels_may_say_partitions(tmp_path):
    write(tmp_path / "labels.csv", "file,label\nx/1.wav,spoof\n2,bonafide\n")
    touch(tmp_path, "x/1.wav", "y/z/2.ogg")
    partition = open_data_set(f"folder:{tmp_path}").partition("eval")
    assert [partition.path(trial) for trial in partition.trials] == [tmp_path / "x/1.wav", tmp_path / "y/z/2.ogg"]
    write(tmp_path / "labels.csv", "file,label,split\nx/1.wav,spoof,test\n2,bonafide,val\n")
    assert open_data_set(f"folder:{tmp_path}").partitions == ("dev", "eval")


# -------------------------------------------------------------------------------------------------------- malformed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: empty file"),
        ("path,label\n", "line 2: no protocol lines below the header"),
        (
            "path,label\na.wav,spoof\na.wav,real\n",
            "line 3: duplicate trial — expected each once, found a.wav also on line 2",
        ),
        ("path,label\na.wav,spoof\n./a.wav,real\n", r"one file is listed twice .* a.wav and ./a.wav"),
        ("path,label\na.wav,spoof\n\nb.wav,1\n", "line 4: unknown key — expected bonafide or spoof, found '1'"),
        ("path,label\na.wav,spoof,x\n", r"line 2: truncated line — expected 2 columns \(utt_id key\), found 3"),
        ("a.wav,spoof,x\n", "line 1: no protocol line — expected columns: 2 .*, found 3"),
        ("path,speaker\na.wav,x\n", "no label column"),
        ("path,label,attack\na.wav,real,A01\n", "line 2: bona fide trial with an attack"),
        (
            "path,label,partition\na.wav,real,tarin\n",
            "unknown partition of a.wav — expected train, dev or eval, found 'tarin'",
        ),
        ("path,label\na b.wav,real\n", "bad utterance name — expected no blanks.*a b.wav"),
        (b"path,label\na.wav,\xff\n", "line 2: not text"),
    ],
)
def test_bad_lists(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        open_data_set(f"csv:{write(tmp_path / 'list.csv', text)}").partition("eval")


def test_a_list_needs_no_header(tmp_path):
    corpus = open_data_set(f"csv:{write(tmp_path / 'list.csv', HEADLESS)}")
    assert [trial[::3] for trial in corpus.partition("eval").trials] == [("b.wav", "spoof"), ("a.wav", "bonafide")]


HEADLESS = "b.wav,fake\r\na.wav,genuine\r\n"


@pytest.mark.parametrize("kind", ["2021", "asvspoof5", "itw"])
def test_bad_lines_have_their_number(kind, tmp_path):
    root = PUBLISHED[kind][0](tmp_path)
    labels = open_data_set(f"{kind}:{root}").labels
    good = labels.read_text().rstrip().split("\n")
    name = "train" if kind == "asvspoof5" else "eval"
    for lines, words in (
        ([*good, good[-1]], f"line {len(good) + 1}: duplicate trial"),
        ([*good[:-1], good[-1] + (",x" if kind == "itw" else " x")], f"line {len(good)}: truncated line"),
        (
            [*good[:-1], good[-1].replace("bonafide", "bonofide").replace("bona-fide", "bonofide")],
            f"line {len(good)}: ",
        ),
        ([], "line 1: empty file"),
    ):
        labels.write_text("\n".join(lines))
        with pytest.raises(UserError, match=f"{labels}, {words}"):
            open_data_set(f"{kind}:{root}").partition(name)
    labels.write_text("\ufeff" + "\r\n".join(good))
    assert len(open_data_set(f"{kind}:{root}").partition(name).trials) == len(PUBLISHED[kind][1][name])


def test_two_files_of_one_utterance(tmp_path):
    root = make_5(tmp_path)
    touch(root, "flac_T/T_0000000007.flac")
    with pytest.raises(UserError, match=r"two files of T_0000000007 .*flac_T/T_.* and .*flac_T_ab"):
        open_data_set(f"asvspoof5:{root}").partition("train")


def test_labels_of_others_do_not_lead_out_of_the_data_set(tmp_path):
    root = make_itw(tmp_path / "set")
    secret = touch(tmp_path, "secret.wav") / "secret.wav"
    for name in ("../../secret.wav", str(secret)):
        write(root / "release_in_the_wild" / "meta.csv", f"file,speaker,label\n{name},x,spoof\n1.wav,x,bona-fide\n")
        partition = open_data_set(f"itw:{root}").partition("eval")
        assert all(path.is_relative_to(root) for path in partition.files.values())
        assert partition.missing() == [name]


@pytest.mark.parametrize("kind", ["2019", "2021", "2021DF", "asvspoof5", "itw", "wavefake", "folder"])
def test_an_empty_folder_says_what_belongs_there(kind, tmp_path):
    places = {
        "2019": "ASVspoof2019_LA_cm_protocols or LA/",
        "2021": "keys/LA/CM/trial_metadata.txt or LA-keys-full/keys/LA",
        "2021DF": "ASVspoof2021_DF_eval/keys/DF/CM",
        "asvspoof5": r"ASVspoof5.train.tsv or ASVspoof5_protocols/",
        "itw": "meta.csv or release_in_the_wild/meta.csv",
        "wavefake": r"generated_audio/\*/, and LJSpeech-1.1/",
        "folder": "labels.txt, .*, or folders bonafide/ and spoof/",
    }
    with pytest.raises(UserError, match=f"in {tmp_path} — expected .*{places[kind]}"):
        open_data_set(f"{kind}:{tmp_path}")
    with pytest.raises(UserError, match="no data set at /nowhere"):
        open_data_set(f"{kind}:/nowhere")


def test_a_partition_whose_protocol_is_missing_is_named(tmp_path):
    root = make_5(tmp_path)
    (root / "ASVspoof5_protocols" / "ASVspoof5.dev.track_1.tsv").unlink()
    with pytest.raises(UserError, match="no dev partition in .* — expected train or eval, found dev"):
        open_data_set(f"asvspoof5:{root}").partition("dev")
    with pytest.raises(UserError, match="is no CSV file"):
        open_data_set(f"csv:{tmp_path}")


def test_kinds_are_named(tmp_path):
    with pytest.raises(
        UserError, match="unknown kind of data set in asvspoof6:/x — expected one of 2019, 2019PA, 2021, .*csv"
    ):
        open_data_set("asvspoof6:/x")
    for kind in ("2019PA", "2021", "2021DF", "asvspoof5", "itw", "wavefake", "folder", "csv"):
        root = PUBLISHED[kind][0](tmp_path / kind)
        with pytest.raises(UserError, match=rf"expected KIND:PATH, here {kind}:{root} \(KIND one of 2019, .*csv\)"):
            open_data_set(str(root))
    with pytest.raises(UserError, match=r"expected KIND:PATH \(KIND one of"):
        open_data_set(str(touch(tmp_path / "nothing", "x").resolve()))


# ---------------------------------------------------------------------------------------------------------- several


def test_partitions_together_name_utterances_after_their_data_set(tmp_path):
    one, two = (make_2019(tmp_path / name / "LA") for name in ("a", "b"))
    names = [str(one), f"2019:{two}", f"csv:{make_csv(tmp_path / 'c')}", f"itw:{make_itw(tmp_path / 'd')}"]
    train = open_partition(names, "LA", "train")
    assert [(trial.utt_id, trial.source) for trial in train.trials] == [
        ("LA/LA_T_1000137", "LA/LA"),  # its folder's, and the speaker's: LA_0079
        ("LA/LA_T_1000147", "LA/LA"),
        ("LA-2/LA_T_1000137", "LA-2/LA"),
        ("LA-2/LA_T_1000147", "LA-2/LA"),
        ("list/a/1.wav", "list"),
        ("list/a/2.wav", "list"),
    ]
    assert train.missing() == [] and preflight([train], "LA") == []
    assert len(open_partition(names, "LA", "dev").trials) == 6 and len(open_partition(names, "LA", "eval").trials) == 6
    alone = open_partition(names[2:], "LA", "eval")  # only one has it: as it is by itself
    assert alone.trials == PUBLISHED["itw"][1]["eval"]
    with pytest.raises(UserError, match="no eval partition — expected one .* found csv:.* has train, dev$"):
        open_partition(names[2:3], "LA", "eval")


def test_further_eval_sets_have_names_of_their_own(tmp_path):
    touch(tmp_path, "eval/spoof/1.wav", "eval/real/1.wav", "my speech/spoof/1.wav", "my speech/real/1.wav")
    names = [f"folder:{tmp_path / 'eval'}", f"folder:{tmp_path / 'my speech'}", f"itw:{make_itw(tmp_path / 'a')}"]
    found = open_eval_sets([*names, f"itw:{make_itw(tmp_path / 'b')}"], "LA")
    assert [part.name for part in found] == ["eval-2", "my_speech", "in_the_wild", "in_the_wild-2"]


# --------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def own_list(tiny_corpus, tmp_path_factory) -> Path:
    """The demo corpus as a CSV of absolute paths."""
    lines = ["path,label,speaker,attack,partition"]
    for name in ("train", "dev", "eval"):
        partition = ASVspoof2019(tiny_corpus).partition(name)
        lines += [f"{partition.path(t)},{t.key},{t.speaker},{t.attack},{name}" for t in partition.trials]
    return write(tmp_path_factory.mktemp("own") / "mine.csv", "\n".join(lines))


@pytest.fixture(scope="module")
def wild(tiny_corpus, tmp_path_factory) -> Path:
    """The demo corpus's dev partition in folders."""
    root, dev = tmp_path_factory.mktemp("wild") / "wild", ASVspoof2019(tiny_corpus).partition("dev")
    for trial in dev.trials:
        (root / trial.key).mkdir(parents=True, exist_ok=True)
        shutil.copy(dev.path(trial), root / trial.key)
    return root


def test_train_on_a_list_and_report_on_further_sets(own_list, wild, tiny_corpus, tmp_path):
    sets = ["--eval_sets", f"folder:{wild}", f"2019:{tiny_corpus}"]
    packs = ["--cache", "ram", "--cache_path", tmp_path / "packed"]
    run = train_mini(tmp_path, f"csv:{own_list}", *sets, *packs, ema_decay=0.9)
    config = yaml.safe_load((run / "config.conf").read_text())
    assert config["database_path"] == [f"csv:{own_list}"] and config["eval_sets"] == sets[1:]
    found = {(event.get("data_set"), event["checkpoint"]): event["eer_percent"] for event in events(run, "eval")}
    names = (None, "wild", "asvspoof2019")
    assert found.keys() == {(name, checkpoint) for name in names for checkpoint in ("best", "swa", "ema")}
    for checkpoint in ("best", "swa", "ema"):
        assert found[None, checkpoint] == found["asvspoof2019", checkpoint]  # the same audio
        ours = {line.split()[0].rsplit("/")[-1]: line.split()[1:] for line in scored(run, f"eval_{checkpoint}")}
        theirs = {f"{line.split()[0]}.flac": line.split()[1:] for line in scored(run, f"asvspoof2019_{checkpoint}")}
        assert ours == theirs
        files = (scored(run, f"{name}_{checkpoint}") for name in ("dev", "wild"))  # in other batches
        np.testing.assert_allclose(*(sorted(float(line.split()[-1]) for line in lines) for lines in files), atol=1e-5)
        for kind in ("json", "txt"):
            assert (run / "metrics" / f"wild_{checkpoint}.{kind}").exists()
    assert events(run, "start")[0]["trials"] == {"train": 24, "dev": 16, "eval": 16}
    log = LogReader(run / "log.jsonl")
    log.refresh()
    assert log.skipped == 0 and log.further.keys() == {"wild", "asvspoof2019"} and len(log.evals) == 3
    status = run_command("monitor_training.py", "--dir", run, "--once")
    assert "best on wild: EER" in status.stdout
    names = [path.name for path in (tmp_path / "packed").glob("*.pcm")]
    assert sum(name.startswith("LA_wild_") for name in names) == 1 and len(names) == 5


def test_train_on_two_sets_in_equal_shares(own_list, tiny_corpus, tmp_path):
    arguments = mini(tmp_path, f"csv:{own_list}", balance=["source", "key"], num_epochs=1)
    arguments.insert(arguments.index("--output_dir"), tiny_corpus)
    done = Command(tmp_path, "main.py", *arguments).wait()
    assert done.returncode == 0, done.stderr
    trials = open_partition([f"csv:{own_list}", str(tiny_corpus)], "LA", "train").trials
    assert {trial.source for trial in trials} == {"mine", f"{tiny_corpus.name}/LA"} and len(trials) == 48
    assert len(scored(the_run(tmp_path), "eval_best")) == 32


def test_eval_sets_are_checked_before_training(own_list, wild, tmp_path):
    labels = write(tmp_path / "gone.csv", "path,label\na.wav,real\nb.wav,fake\n")
    for name, words in (
        (f"itw:{wild}", ("no In-the-Wild labels", "meta.csv")),
        (f"csv:{labels}", ("gone lacks audio", "2 missing: a.wav, b.wav")),
    ):
        arguments = [*mini(tmp_path, f"csv:{own_list}"), "--eval_sets", name]
        assert_user_error(Command(tmp_path, "main.py", *arguments).wait(), *words)
        assert not (tmp_path / "runs").exists()


def test_a_name_that_no_score_file_can_hold_is_refused(tmp_path):
    for key in ("bonafide", "spoof"):
        (tmp_path / key).mkdir()
        soundfile.write(tmp_path / key / f"{key}.wav", np.zeros(1600), 16000)
    os.rename(tmp_path / "spoof" / "spoof.wav", os.fsencode(tmp_path / "spoof") + b"/caf\xe9.wav")
    with pytest.raises(UserError, match=r"bad utterance name — expected UTF-8.*caf\\xe9"):
        open_data_set(f"folder:{tmp_path}", "LA").partition("eval")
