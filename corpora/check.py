"""Is a data set sound? Finds files that are damaged or missing, leaks between partitions, and giveaway cues.

    python data_utils.py check /data/LA                        # or KIND:PATH (docs/datasets.md)
    python main.py --config config/AASIST.conf --check_data    # the data sets that a run would use

Every file is decoded once. A finding is a `problem`, which makes results wrong, or a `note`, which is good to know.
docs/check_data.md says what each finding means and what to do about it.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
from tqdm import tqdm

from audio import SAMPLE_RATE
from audio.search import UNREADABLE, is_audio
from common.pool import map_in_order
from corpora.check_report import NOTE, PROBLEM, CheckReport, Finding, PartitionFacts, counted
from corpora.cues import CUES, MeasuredFile, UnreadableFile, cue_eers, measure_file
from corpora.trials import Partition
from metrics.scores import BONAFIDE

CLIPPED_FRACTION = 0.001  # of a file's samples: more at full scale is audible
UNKNOWN_SPEAKERS = {"", "-"}
CLASSES = ("bonafide", "spoof")
# Findings about single files: severity, and "<n> of <N> files …".
FILE_FINDINGS = {
    "missing": (PROBLEM, "listed but not there"),
    "undecodable": (PROBLEM, "that no decoder can read"),
    "empty": (PROBLEM, "without samples"),
    "not_finite": (PROBLEM, "with NaN or infinite samples"),
    "wrong_scale": (PROBLEM, "with samples far beyond full scale (integers stored as floats)"),
    "truncated": (PROBLEM, "damaged or cut short"),
    "unheard": (PROBLEM, "with bytes after their sound that nothing decodes"),
    "silent": (PROBLEM, "of digital silence"),
    "faint": (NOTE, "without any sound above −60 dBFS"),
    "clipped": (NOTE, f"clipped (more than {CLIPPED_FRACTION:.1%} of samples at full scale)"),
    "joined": (NOTE, "with more sound after an announced end; all of it is read"),
    "tracks": (NOTE, "of several audio tracks; they are read one after another"),
    "cancelling": (NOTE, "whose channels cancel in their mean; the loudest one is taken"),
    "pyav": (NOTE, "that libsndfile cannot read but PyAV (FFmpeg) can"),
    "sample_rate": (NOTE, "not at 16 kHz; they are resampled"),
    "channels": (NOTE, "of several channels; their mean is taken"),
}
ORDER = (
    *("one_class", "official_count", *FILE_FINDINGS, "left_out", "formats", "extra"),
    *("leak", "contradiction", "duplicate", "shared_speakers", "shortcut"),
)


def examine(partitions: Sequence[Partition], workers: int) -> CheckReport:
    """Decode every file in `workers` processes (0: in this one) and report on all partitions together.

    Takes about 1 kB of memory a file. Raises UserError when a process dies.
    """
    paths = [partition.path(trial) for partition in partitions for trial in partition.trials]
    with closing(map_in_order(measure_file, paths, min(workers, os.cpu_count() or 1))) as measuring:
        files = list(tqdm(measuring, "check", len(paths), leave=False, disable=None))
    checked, first = [], 0
    for partition in partitions:
        checked.append(_CheckedPartition(partition, files[first : first + len(partition.trials)]))
        first += len(partition.trials)
    findings = [finding for each in checked for finding in each.findings()]
    findings += [
        *_left_out(checked),
        *_formats(checked),
        *_extra_files(checked),
        *_duplicates(checked),
        *_shared_speakers(checked),
    ]
    findings.sort(key=lambda finding: (finding.severity != PROBLEM, ORDER.index(finding.name)))
    return CheckReport([each.facts for each in checked], findings)


def file_faults(file: MeasuredFile | UnreadableFile) -> Iterator[tuple[str, str]]:
    """Names of FILE_FINDINGS that a file has, each with a detail."""
    if isinstance(file, UnreadableFile):
        yield (file.condition if file.condition in FILE_FINDINGS else "undecodable"), file.message
        return
    facts = file.facts
    if facts.lost_seconds or facts.damaged_packets:
        yield "truncated", f"{facts.lost_seconds:.2f} s lost, {facts.damaged_packets} packets damaged"
    elif facts.decoder == "pyav":
        yield "pyav", facts.coding
    if facts.unheard_bytes:
        yield "unheard", f"{facts.unheard_bytes:,} bytes"
    if facts.joined_at:
        yield "joined", f"at {', '.join(f'{seconds:.2f}' for seconds in facts.joined_at)} s"
    if facts.tracks > 1:
        yield "tracks", f"{facts.tracks} tracks"
    if facts.cancelled_seconds:
        yield "cancelling", f"for {facts.cancelled_seconds:.2f} s"
    if file.silent:
        yield "silent", f"{facts.seconds:.2f} s"
    elif not facts.active_seconds:
        yield "faint", f"peak {file.cues[list(CUES).index('peak')]:.0f} dBFS"
    if facts.clipped > CLIPPED_FRACTION:
        yield "clipped", f"{facts.clipped:.1%}"
    if facts.rate != SAMPLE_RATE:
        yield "sample_rate", f"{facts.rate} Hz"
    if facts.channels != 1:
        yield "channels", f"{facts.channels} channels"


# ------------------------------------------------------------------------------------------------------ a partition


class _CheckedPartition:
    """A partition and what was measured of each trial's file."""

    def __init__(self, partition: Partition, files: list[MeasuredFile | UnreadableFile]):
        self.partition, self.files = partition, files
        self.name, self.trials = partition.name, partition.trials
        both = zip(self.trials, files, strict=True)
        self.decoded = [(trial, file) for trial, file in both if isinstance(file, MeasuredFile)]
        self.facts = self._facts()

    def _facts(self) -> PartitionFacts:
        files, keys = [file for _, file in self.decoded], Counter(trial.key for trial in self.trials)
        seconds = {key: [f.facts.seconds for trial, f in self.decoded if trial.key == key] for key in CLASSES}
        return PartitionFacts(
            name=self.name,
            trials=len(self.trials),
            official_count=self.partition.official_count,
            bonafide=keys["bonafide"],
            spoof=keys["spoof"],
            speakers=len(self.speakers()),
            attacks=dict(sorted(Counter(trial.attack for trial in self.trials if trial.key == "spoof").items())),
            decoders=dict(Counter(file.facts.decoder for file in files).most_common()),
            formats=dict(Counter(file.format for file in files).most_common()),
            seconds={key: np.array(values) for key, values in seconds.items()},
            cues=cue_eers([(trial.label == BONAFIDE, file) for trial, file in self.decoded if not file.silent]),
        )

    def speakers(self) -> set[str]:
        """`<source>/<speaker>`, as two data sets may use one name for two people; not if the name has the source."""
        known = (trial for trial in self.trials if trial.speaker not in UNKNOWN_SPEAKERS)
        return {t.speaker if t.speaker.startswith(t.source) else f"{t.source}/{t.speaker}" for t in known}

    def findings(self) -> Iterator[Finding]:
        """What can be said about this partition alone."""
        yield from self._counts()
        yield from self._faulty_files()
        yield from self._shortcuts()

    def _counts(self) -> Iterator[Finding]:
        count, official = len(self.trials), self.partition.official_count
        if not (self.facts.bonafide and self.facts.spoof):
            only = "bona fide" if self.facts.bonafide else "spoof"
            yield Finding(PROBLEM, "one_class", self.name, f"all {count:,} trials are {only}")
        if official and count != official:
            yield Finding(NOTE, "official_count", self.name, f"{count:,} trials, the published partition {official:,}")

    def _faulty_files(self) -> Iterator[Finding]:
        found = defaultdict(list)
        for trial, file in zip(self.trials, self.files, strict=True):
            for fault, detail in file_faults(file):
                path = str(self.partition.path(trial))
                found[fault].append(detail if path in detail else f"{path}: {detail}")
        for name, items in found.items():
            severity, what = FILE_FINDINGS[name]
            yield Finding(severity, name, self.name, f"{len(items):,} of {len(self.trials):,} files {what}", items)

    def _shortcuts(self) -> Iterator[Finding]:
        for name, cue in self.facts.cues.items():
            if cue.tells:
                text = f"{name} alone gives the key away: EER {cue.percents} %"
                if cue.bonafide is not None:
                    text += f"; median {cue.bonafide:.3g} (bona fide), {cue.spoof:.3g} (spoof) {CUES[name]}"
                yield Finding(NOTE, "shortcut", self.name, text)


# --------------------------------------------------------------------------------------------------- all partitions


def _formats(checked: list[_CheckedPartition]) -> Iterator[Finding]:
    formats = sum((Counter(each.facts.formats) for each in checked), Counter())
    if len(formats) > 1:
        items = [f"{name}: {count:,} files" for name, count in formats.most_common()]
        yield Finding(NOTE, "formats", _names(checked), f"{len(formats)} file formats", items)


def _left_out(checked: list[_CheckedPartition]) -> Iterator[Finding]:
    """Paths in folders of classes that are no trial; a folder that cannot be read hides trials."""
    names, all_paths = defaultdict(list), defaultdict(dict)
    for each in checked:
        for reason, paths in each.partition.left_out.items():
            names[reason].append(each.name)
            all_paths[reason] |= dict.fromkeys(paths)
    for reason, paths in all_paths.items():
        severity = PROBLEM if reason.startswith(UNREADABLE) else NOTE
        text = f"{counted(len(paths), 'path')} left out: {reason}"
        yield Finding(severity, "left_out", ", ".join(names[reason]), text, list(paths))


def _extra_files(checked: list[_CheckedPartition]) -> Iterator[Finding]:
    """Audio in the folders of listed files that no partition lists."""
    listed = {os.path.normpath(path) for each in checked for path in each.partition.files.values()}
    extra = []
    for folder in sorted(filter(os.path.isdir, {os.path.dirname(path) for path in listed})):
        with os.scandir(folder) as entries:
            there = sorted(entry.path for entry in entries if is_audio(entry.name))
        extra += [path for path in there if path not in listed]
    if extra:
        text = f"{counted(len(extra), 'audio file')} beside the listed ones"
        yield Finding(NOTE, "extra", _names(checked), text, extra)


def _duplicates(checked: list[_CheckedPartition]) -> Iterator[Finding]:
    """Trials with the same samples, but for digital silence, which is the same everywhere and is found by itself."""
    groups = defaultdict(list)
    for each in checked:
        for trial, file in each.decoded:
            if not file.silent:
                groups[file.digest].append((each.name, trial))
    found = defaultdict(list)
    for group in (group for group in groups.values() if len(group) > 1):
        names = ", ".join(dict.fromkeys(name for name, _ in group))
        item = " = ".join(f"{name} {trial.utt_id} ({trial.key})" for name, trial in group)
        contradicts, leaks = len({trial.key for _, trial in group}) > 1, len({name for name, _ in group}) > 1
        for kind, holds in (("contradiction", contradicts), ("leak", leaks)):
            if holds:
                found[PROBLEM, kind, names].append(item)
        if not contradicts and not leaks:
            found[NOTE, "duplicate", names].append(item)
    texts = {"contradiction": "has both keys", "leak": "is in several partitions", "duplicate": "has several names"}
    for (severity, kind, names), items in found.items():
        yield Finding(severity, kind, names, f"the same audio {texts[kind]}: {len(items):,} recordings", items)


def _shared_speakers(checked: list[_CheckedPartition]) -> Iterator[Finding]:
    """A problem where the published data set keeps its speakers apart: ASVspoof 2019."""
    for index, one in enumerate(checked):
        for other in checked[index + 1 :]:
            if shared := sorted(one.speakers() & other.speakers()):
                published = one.partition.official_count and other.partition.official_count
                text = f"{len(shared):,} speakers are in both"
                yield Finding(PROBLEM if published else NOTE, "shared_speakers", _names([one, other]), text, shared)


def _names(checked: Sequence[_CheckedPartition]) -> str:
    return ", ".join(each.name for each in checked)
