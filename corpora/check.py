"""Is a data set sound? Every file is decoded once; what is damaged, leaks or gives the key away is named.

    python data_utils.py check /data/LA                        # or KIND:PATH, as corpora.open_corpus takes it
    python main.py --config config/AASIST.conf --check_data    # the data sets that a run would use

A finding is a `problem` (results would be wrong) or a `note` (to be known). docs/check_data.md says what each means and
what to do about it.
"""

import math
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from audio import SAMPLE_RATE, reading
from audio.errors import AudioError
from audio.levels import FRAME_SAMPLES
from common.pool import map_in_order
from corpora import packed
from corpora.trials import MAX_NAMED, Partition
from metrics.error_rates import Ranking
from metrics.scores import BONAFIDE
from plots.datasets import PartitionSummary, data_set_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 100  # columns of the text report
SPECTRUM = 1280  # samples: 80 ms, so that bins lie 12.5 Hz apart
QUIET = 40.0  # dB below the loudest 20 ms: quiet
FLOOR_PERCENTILE = 5  # of the levels of 20 ms: the noise floor
SILENCE = 1e-10  # power that is added before a logarithm: −100 dBFS
CLIPPED_SHARE = 0.001  # of a file's samples: more at full scale are heard
TELLING = 0.40  # a cue is flagged when its EER's whole 95 % interval lies below
Z = 1.96  # standard deviations: 95 %
KEYS = ("bonafide", "spoof")
UNKNOWN_SPEAKERS = {"", "-"}
# name: unit
CUES = {
    "duration": "s",
    "leading quiet": "s",
    "trailing quiet": "s",
    "level": "dBFS",
    "peak": "dBFS",
    "noise floor": "dBFS",
    "energy below 80 Hz": "dB",
    "energy 4–6 kHz": "dB",
    "energy 6.8–7.7 kHz": "dB",
    "energy above 7.7 kHz": "dB",
    "DC offset": "16-bit steps",
    "exact zeros": "of samples",
}
FORMAT = "file format"  # the cue that is a name and no number
BANDS = ((0, 80), (4000, 6000), (6800, 7700), (7700, 8001))  # Hz, in the order of CUES
PROBLEM, NOTE = "problem", "note"
# What a single file may have: severity, and "<n> of <N> files …".
FILE_FINDINGS = {
    "missing": (PROBLEM, "listed but not there"),
    "undecodable": (PROBLEM, "decoded by nothing"),
    "empty": (PROBLEM, "without samples"),
    "not_finite": (PROBLEM, "with NaN or infinite samples"),
    "truncated": (PROBLEM, "damaged or ending too early"),
    "silent": (PROBLEM, "of digital silence"),
    "faint": (NOTE, "without any sound above −60 dBFS"),
    "clipped": (NOTE, f"clipped (more than {CLIPPED_SHARE:.1%} of samples at full scale)"),
    "pyav": (NOTE, "that libsndfile cannot read; PyAV (FFmpeg) decodes them"),
    "sample_rate": (NOTE, "not at 16 kHz; they are resampled"),
    "channels": (NOTE, "of several channels; their mean is taken"),
}
ORDER = (
    *("one_class", "official_count", *FILE_FINDINGS, "formats", "extra"),
    *("leak", "contradiction", "duplicate", "shared_speakers", "shortcut"),
)


# ------------------------------------------------------------------------------------------------------------ a file


class Sound(NamedTuple):
    """What is kept of a decoded file."""

    facts: reading.RecordingFacts
    digest: bytes  # of its samples rounded to 16 bits: the same for any lossless coding of them
    silent: bool  # all samples are the same
    cues: tuple[float, ...]  # in the order of CUES

    @property
    def format(self) -> str:
        return f"{self.facts.coding}, {self.facts.rate} Hz, {self.facts.channels} ch"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Names of FILE_FINDINGS that the file has, each with a detail."""
        facts = self.facts
        if facts.lost_seconds or facts.damaged_packets:
            yield "truncated", f"{facts.lost_seconds:.2f} s lost, {facts.damaged_packets} packets damaged"
        elif facts.decoder == "pyav":
            yield "pyav", facts.coding
        if self.silent:
            yield "silent", f"{facts.seconds:.2f} s"
        elif not facts.active_seconds:
            yield "faint", f"peak {self.cues[4]:.0f} dBFS"
        if facts.clipped > CLIPPED_SHARE:
            yield "clipped", f"{facts.clipped:.1%}"
        if facts.rate != SAMPLE_RATE:
            yield "sample_rate", f"{facts.rate} Hz"
        if facts.channels != 1:
            yield "channels", f"{facts.channels} channels"


class Failure(NamedTuple):
    """A file that gives no samples."""

    fault: str  # of FILE_FINDINGS
    message: str

    def faults(self) -> Iterator[tuple[str, str]]:
        yield self.fault, self.message


def listen(path: Path) -> Sound | Failure:
    """Decode a file once, in blocks, and measure it."""
    recording, meter = reading.Recording(path, max_seconds=reading.MAX_SECONDS), _Meter()
    try:
        for block in recording:
            meter.add(block)
    except AudioError as error:
        known = error.condition if error.condition in FILE_FINDINGS else "undecodable"
        return Failure(known, str(error))
    cues = meter.cues()
    return Sound(recording.facts, meter.digest.digest(), meter.low == meter.high, cues)


class _Meter:
    """Sums over a signal that comes in blocks: of an hour it keeps its levels, 180,000 numbers."""

    def __init__(self):
        self.digest = blake2b(digest_size=16)
        self.count = self.zeros = 0
        self.sum = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf
        self.levels: list[np.ndarray] = []  # power of each 20 ms
        self.spectrum = np.zeros(SPECTRUM // 2 + 1)
        self.rest = np.empty(0, np.float32)

    def add(self, x: np.ndarray) -> None:
        """(n,) float32."""
        self.digest.update(np.rint(x * packed.FULL_SCALE).clip(-(2**31), 2**31 - 1).astype("<i4"))
        self.count += len(x)
        self.zeros += len(x) - np.count_nonzero(x)
        self.sum += float(x.sum(dtype=float))
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        x = np.concatenate([self.rest, x])
        whole = len(x) // SPECTRUM * SPECTRUM
        self.rest = x[whole:].copy()
        self._frames(x[:whole])

    def _frames(self, x: np.ndarray) -> None:
        """(n,), n a multiple of SPECTRUM."""
        powers = np.square(x.reshape(-1, FRAME_SAMPLES), dtype=float).mean(axis=1)
        self.levels.append(powers)
        self.squares += powers.sum() * FRAME_SAMPLES
        frames = x.reshape(-1, SPECTRUM) * np.hanning(SPECTRUM).astype(np.float32)
        self.spectrum += np.square(np.abs(np.fft.rfft(frames))).sum(axis=0)

    def cues(self) -> tuple[float, ...]:
        """Of the whole signal, n ≥ 1 samples, in the order of CUES."""
        self._frames(np.pad(self.rest, (0, -len(self.rest) % SPECTRUM)))
        frames = max(1, self.count // FRAME_SAMPLES)  # none that is padded, unless there is no other
        levels = 10 * np.log10(np.concatenate(self.levels)[:frames] + SILENCE)
        loud = np.flatnonzero(levels >= levels.max() - QUIET)
        frame = FRAME_SAMPLES / SAMPLE_RATE
        hertz = np.fft.rfftfreq(SPECTRUM, 1 / SAMPLE_RATE)
        bands = [self.spectrum[(hertz >= low) & (hertz < high)].sum() for low, high in BANDS]
        numbers = (
            self.count / SAMPLE_RATE,
            loud[0] * frame,
            (frames - 1 - loud[-1]) * frame,
            10 * np.log10(self.squares / self.count + SILENCE),
            20 * np.log10(max(-self.low, self.high) + SILENCE**0.5),
            np.percentile(levels, FLOOR_PERCENTILE),
            *(10 * np.log10((band + SILENCE) / (self.spectrum.sum() + SILENCE)) for band in bands),
            self.sum / self.count * packed.FULL_SCALE,
            self.zeros / self.count,
        )
        return tuple(map(float, numbers))


# ---------------------------------------------------------------------------------------------------------- a report


@dataclass(frozen=True)
class Finding:
    """`items` names all files, speakers or groups of files at fault."""

    severity: str  # "problem" or "note"
    name: str
    where: str  # partition, or partitions
    text: str
    items: list[str] = field(default_factory=list)


class Cue(NamedTuple):
    """How far one number alone separates the classes: 0.5 = not at all, whichever class has more of it."""

    eer: float
    low: float  # of its 95 % interval
    high: float
    bonafide: float | None  # median, in the unit of CUES
    spoof: float | None

    @property
    def tells(self) -> bool:
        return self.high < TELLING


@dataclass(frozen=True)
class PartitionFacts:
    """What a partition holds; counts of trials, and by value of those that decode."""

    name: str
    trials: int
    official_count: int | None
    bonafide: int
    spoof: int
    speakers: int
    attacks: dict[str, int]
    decoders: dict[str, int]
    formats: dict[str, int]
    seconds: dict[str, np.ndarray]  # of each file by class, (n,)
    cues: dict[str, Cue]

    def to_dict(self) -> dict:
        """With a summary and a histogram in place of each file's duration."""
        longest = max((values.max(initial=0) for values in self.seconds.values()), default=0)
        seconds = {key: _summary(values, longest) for key, values in self.seconds.items()}
        cues = {name: cue._asdict() | {"unit": CUES.get(name), "tells": cue.tells} for name, cue in self.cues.items()}
        return vars(self) | {"seconds": seconds, "cues": cues}


def _summary(seconds: np.ndarray, longest: float) -> dict:
    counts, edges = np.histogram(seconds, 20, (0, longest or 1))
    ends = [round(float(end), 4) for end in np.percentile(seconds, (0, 50, 100))] if len(seconds) else [None] * 3
    names = ("shortest", "median", "longest")
    histogram = {"edges": edges.round(4).tolist(), "counts": counts.tolist()}
    return {"total": round(float(seconds.sum()), 3), **dict(zip(names, ends, strict=True)), "histogram": histogram}


@dataclass(frozen=True)
class Report:
    """Problems come first among the findings."""

    partitions: list[PartitionFacts]
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == PROBLEM]

    def to_dict(self) -> dict:
        """For JSON: rates as fractions, durations in seconds."""
        partitions = {facts.name: facts.to_dict() for facts in self.partitions}
        findings = [asdict(finding) for finding in self.findings]
        return {"problems": len(self.problems), "partitions": partitions, "findings": findings}


def examine(partitions: Sequence[Partition], workers: int) -> Report:
    """Decode every file in `workers` processes (0: in this one) and report on all partitions together.

    Keeps about 1 kB of a file. Raises UserError when a process dies.
    """
    paths = [partition.path(trial) for partition in partitions for trial in partition.trials]
    with closing(map_in_order(listen, paths, min(workers, os.cpu_count() or 1))) as sounds:
        heard = list(tqdm(sounds, "check", len(paths), leave=False, disable=None))
    parts, first = [], 0
    for partition in partitions:
        parts.append(_Part(partition, heard[first : first + len(partition.trials)]))
        first += len(partition.trials)
    findings = [finding for part in parts for finding in (*part.counts(), *part.file_findings(), *part.shortcuts())]
    findings += [*_formats(parts), *_extra_files(parts), *_duplicates(parts), *_shared_speakers(parts)]
    findings.sort(key=lambda finding: (finding.severity != PROBLEM, ORDER.index(finding.name)))
    return Report([part.facts for part in parts], findings)


class _Part:
    """A partition and what was heard of each trial."""

    def __init__(self, partition: Partition, heard: list[Sound | Failure]):
        self.partition, self.heard = partition, heard
        self.name, self.trials = partition.name, partition.trials
        both = zip(self.trials, heard, strict=True)
        self.decoded = [(trial, sound) for trial, sound in both if isinstance(sound, Sound)]
        self.facts = self._facts()

    def _facts(self) -> PartitionFacts:
        sounds, keys = [sound for _, sound in self.decoded], Counter(trial.key for trial in self.trials)
        seconds = {key: [s.facts.seconds for trial, s in self.decoded if trial.key == key] for key in KEYS}
        return PartitionFacts(
            self.name,
            len(self.trials),
            self.partition.official_count,
            keys["bonafide"],
            keys["spoof"],
            len(self.speakers()),
            dict(sorted(Counter(trial.attack for trial in self.trials if trial.key == "spoof").items())),
            dict(Counter(sound.facts.decoder for sound in sounds).most_common()),
            dict(Counter(sound.format for sound in sounds).most_common()),
            {key: np.array(values) for key, values in seconds.items()},
            measure_cues([(trial.label == BONAFIDE, sound) for trial, sound in self.decoded if not sound.silent]),
        )

    def speakers(self) -> set[str]:
        """Two data sets may call different people the same; a source that begins the name needs no second mention."""
        known = (trial for trial in self.trials if trial.speaker not in UNKNOWN_SPEAKERS)
        return {t.speaker if t.speaker.startswith(t.source) else f"{t.source}/{t.speaker}" for t in known}

    def counts(self) -> Iterator[Finding]:
        count, official = len(self.trials), self.partition.official_count
        if not (self.facts.bonafide and self.facts.spoof):
            only = "bona fide" if self.facts.bonafide else "spoof"
            yield Finding(PROBLEM, "one_class", self.name, f"all {count:,} trials are {only}")
        if official and count != official:
            yield Finding(NOTE, "official_count", self.name, f"{count:,} trials, the published partition {official:,}")

    def file_findings(self) -> Iterator[Finding]:
        found = defaultdict(list)
        for trial, sound in zip(self.trials, self.heard, strict=True):
            for fault, detail in sound.faults():
                path = str(self.partition.path(trial))
                found[fault].append(detail if path in detail else f"{path}: {detail}")
        for name, items in found.items():
            severity, what = FILE_FINDINGS[name]
            yield Finding(severity, name, self.name, f"{len(items):,} of {len(self.trials):,} files {what}", items)

    def shortcuts(self) -> Iterator[Finding]:
        for name, cue in self.facts.cues.items():
            if cue.tells:
                text = f"{name} alone gives the key away: EER {_percents(cue)} %"
                if cue.bonafide is not None:
                    text += f"; median {cue.bonafide:.3g} (bona fide), {cue.spoof:.3g} (spoof) {CUES[name]}"
                yield Finding(NOTE, "shortcut", self.name, text)


def _formats(parts: list[_Part]) -> Iterator[Finding]:
    formats = sum((Counter(part.facts.formats) for part in parts), Counter())
    if len(formats) > 1:
        items = [f"{name}: {count:,} files" for name, count in formats.most_common()]
        yield Finding(NOTE, "formats", _names(parts), f"{len(formats)} file formats", items)


def _extra_files(parts: list[_Part]) -> Iterator[Finding]:
    """Audio beside the listed files that is in no partition."""
    listed = {os.path.normpath(path) for part in parts for path in part.partition.files.values()}
    extra = []
    for folder in sorted(filter(os.path.isdir, {os.path.dirname(path) for path in listed})):
        with os.scandir(folder) as entries:
            there = sorted(
                entry.path for entry in entries if os.path.splitext(entry.name)[1].lower() in reading.ENDINGS
            )
        extra += [path for path in there if path not in listed]
    if extra:
        yield Finding(
            NOTE, "extra", _names(parts), f"{_number(len(extra), 'audio file')} beside the listed ones", extra
        )


def _duplicates(parts: list[_Part]) -> Iterator[Finding]:
    """Trials with the same samples; digital silence is the same everywhere, and has a finding of its own."""
    groups = defaultdict(list)
    for part in parts:
        for trial, sound in part.decoded:
            if not sound.silent:
                groups[sound.digest].append((part.name, trial))
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
    texts = {"contradiction": "stands under both keys", "leak": "is in several partitions"}
    for (severity, kind, names), items in found.items():
        what = texts.get(kind, "stands under several names")
        yield Finding(severity, kind, names, f"the same audio {what}: {len(items):,} recordings", items)


def _shared_speakers(parts: list[_Part]) -> Iterator[Finding]:
    """A problem where the published data set keeps its speakers apart: ASVspoof2019."""
    for index, one in enumerate(parts):
        for other in parts[index + 1 :]:
            if shared := sorted(one.speakers() & other.speakers()):
                published = one.partition.official_count and other.partition.official_count
                text = f"{len(shared):,} speakers are in both"
                yield Finding(PROBLEM if published else NOTE, "shared_speakers", _names([one, other]), text, shared)


def _names(parts: Sequence[_Part]) -> str:
    return ", ".join(part.name for part in parts)


# ------------------------------------------------------------------------------------------------------------- cues


def measure_cues(sounds: Sequence[tuple[bool, Sound]]) -> dict[str, Cue]:
    """Of (is bona fide, sound) pairs: each cue that varies; none unless there are both classes."""
    is_bonafide = np.array([label for label, _ in sounds], bool)
    if is_bonafide.all() or not is_bonafide.any():
        return {}
    values = np.array([sound.cues for _, sound in sounds])
    columns = dict(zip(CUES, values.T, strict=True))
    cues = {name: measure_cue(column, is_bonafide) for name, column in columns.items()}
    formats = np.unique([sound.format for _, sound in sounds], return_inverse=True)[1]
    if formats.any():  # a name becomes the share of bona fide among those that have it
        share = np.bincount(formats, is_bonafide) / np.bincount(formats)
        cues[FORMAT] = measure_cue(share[formats], is_bonafide)._replace(bonafide=None, spoof=None)
    return cues


def measure_cue(values: np.ndarray, is_bonafide: np.ndarray) -> Cue:
    """values (N,) finite, is_bonafide (N,) bool, both classes there.

    Cues have ties, on which the official EER depends on the trials' order (a constant one has 0 or 100 %): here the
    curve is straight across each tie. The interval is E. B. Wilson's (JASA 22, 1927) for the trials that both error
    rates of an EER have together (S. Bengio and J. Mariéthoz, A statistical significance test for person
    authentication, Odyssey 2004): 4 / (1/bona fide + 1/spoof), the number of trials if the classes are alike.
    """
    ranking = Ranking(values, is_bonafide)
    frr, far = (rate[ranking.ends] for rate in ranking.rates())
    eer = float(np.interp(0, frr - far, frr))
    eer, bonafide = min(eer, 1 - eer), int(is_bonafide.sum())
    n = 4 / (1 / bonafide + 1 / (len(values) - bonafide))
    centre = (eer + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(eer * (1 - eer) / n + Z**2 / (4 * n**2))
    medians = (float(np.median(values[chosen])) for chosen in (is_bonafide, ~is_bonafide))
    return Cue(eer, max(0.0, centre - half), min(0.5, centre + half), *medians)


def _percents(cue: Cue) -> str:
    return f"{100 * cue.eer:.1f} ({100 * cue.low:.0f}–{100 * cue.high:.0f})"


# ------------------------------------------------------------------------------------------------------- for people


def format_report(report: Report) -> str:
    """Text of at most 100 columns: counts, formats, cues, then the findings, each with the first of its items."""
    blocks = [_counts_table(report.partitions), _formats_table(report.partitions), _cue_table(report.partitions)]
    blocks += map(_paragraph, report.findings)
    problems, notes = len(report.problems), len(report.findings) - len(report.problems)
    blocks.append(f"{_number(problems, 'problem')}, {_number(notes, 'note')}")
    return "\n\n".join(filter(None, blocks))


def _counts_table(partitions: Sequence[PartitionFacts]) -> str:
    heads = ("trials", "published", "bona fide", "spoof", "speakers", "attacks", "hours")
    lines = [f"{'':<10}" + "".join(f"{head:>11}" for head in heads)]
    for facts in partitions:
        hours = sum(values.sum() for values in facts.seconds.values()) / 3600
        counts = (
            facts.trials,
            facts.official_count,
            facts.bonafide,
            facts.spoof,
            facts.speakers,
            len(facts.attacks.keys() - {"-"}),
        )
        cells = ["–" if count is None else f"{count:,}" for count in counts]
        lines.append(f"{_short(facts.name, 10):<10}" + "".join(f"{cell:>11}" for cell in (*cells, f"{hours:.2f}")))
    return "\n".join(lines)


def _formats_table(partitions: Sequence[PartitionFacts]) -> str:
    lines = [f"{'':<10}{'seconds (shortest, median, longest)':<38}files"]
    for facts in partitions:
        seconds = np.concatenate(list(facts.seconds.values()))
        ends = ", ".join(f"{end:.2f}" for end in np.percentile(seconds, (0, 50, 100))) if len(seconds) else "–"
        formats = [f"{name}: {count:,}" for name, count in list(facts.formats.items())[:MAX_NAMED]]
        formats += ["…"] if len(facts.formats) > MAX_NAMED else []
        for index, text in enumerate(formats or ["–"]):
            lines.append(f"{'' if index else _short(facts.name, 10):<10}{'' if index else ends:<38}{_short(text, 52)}")
    return "\n".join(lines)


def _cue_table(partitions: Sequence[PartitionFacts]) -> str:
    """Empty where no partition has both classes."""
    names = dict.fromkeys(name for facts in partitions for name in facts.cues)
    if not names:
        return ""
    head = "EER % of one cue alone and its 95 % interval: 50 tells nothing, * gives the key away"
    lines = [head, (f"{'':<22}" + "".join(f"{_short(facts.name, 15):<17}" for facts in partitions)).rstrip()]
    for name in names:
        cues = [facts.cues.get(name) for facts in partitions]
        cells = ["–" if cue is None else f"{_percents(cue)}{' *' if cue.tells else ''}" for cue in cues]
        lines.append((f"{name:<22}" + "".join(f"{cell:<17}" for cell in cells)).rstrip())
    return "\n".join(lines)


def _paragraph(finding: Finding) -> str:
    head = f"{finding.severity}: {finding.name} ({finding.where}): {finding.text}"
    lines = textwrap.wrap(head, WIDTH, subsequent_indent="    ")
    for item in finding.items[:MAX_NAMED]:
        lines += textwrap.wrap(_short(item, 3 * WIDTH), WIDTH, initial_indent="    ", subsequent_indent="      ")
    more = len(finding.items) - MAX_NAMED
    return "\n".join([*lines, *([f"    and {more:,} more"] if more > 0 else [])])


def _number(count: int, what: str) -> str:
    return f"{f'{count:,}' if count else 'no'} {what}{'' if count == 1 else 's'}"


def _short(text: str, length: int) -> str:
    """`text` without its middle if it is longer than `length`: a path's end names the file."""
    return text if len(text) <= length else f"{text[: length // 3]}…{text[len(text) - (length - length // 3 - 1) :]}"


def figure(report: Report) -> "Figure":
    """Counts, durations and cues of each partition: data_set_report."""
    parts = {}
    for facts in report.partitions:
        cues = {name: (cue.eer, cue.low, cue.high) for name, cue in facts.cues.items()}
        parts[facts.name] = PartitionSummary((facts.bonafide, facts.spoof), tuple(facts.seconds.values()), cues)
    return data_set_report(parts, TELLING)
