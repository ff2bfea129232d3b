"""Chunk scores → a file's score, suspicious regions, probability and verdict, and the words for all of them.

A verdict is "bonafide", "spoof", or "abstain" where a score would mean nothing. `FileResult.to_dict` is the form in
JSON; `VERDICT_WORDS`, `verdict_line` and `verdict_report` are for people. docs/inference.md explains the rules.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from audio import SAMPLE_RATE
from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from common.escaping import printable
from metrics.error_rates import threshold_at_far
from scoring.model_card import ModelCard
from scoring.speaker import ChunkLikeness, Likeness, Reference, likeness_text

SCHEMA = "aasist.inference/1"
MIN_ACTIVE_SECONDS = 0.5  # of sound; less holds no speech to judge
SHORT_SECONDS = 2.0  # of sound; less is weak evidence
MAX_CLIPPED = 0.001  # fraction of samples at full scale
LOWEST = 3  # chunks that `topk` averages
AGGREGATES = {
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "topk": lambda scores: np.sort(scores)[:LOWEST].mean(),
    "first": lambda scores: scores[0],
}
BY_SELECTION = ("min", "topk")  # the lowest of many chunks is low by selection, not by evidence alone
MAX_LISTED_CHUNKS = 20  # in text; files list all


class Condition(NamedTuple):
    """A property of the recording that makes its score less reliable or meaningless."""

    name: str
    detail: str


class ChunkScore(NamedTuple):
    """A chunk's start and end (seconds), and its score; a silent chunk has none."""

    start: float
    end: float
    score: float | None


class SuspiciousRegion(NamedTuple):
    """A passage of neighbouring chunks at or below the threshold: start and end (seconds), the lowest chunk's score."""

    start: float
    end: float
    score: float


@dataclass(frozen=True)
class VerdictSettings:
    """The user's choices; docs/inference.md explains them."""

    threshold: float | None  # scores above it are bona fide
    threshold_source: str
    prior_spoof: float = 0.5  # the expected fraction of spoofs
    aggregate: Literal["mean", "median", "min", "topk", "first"] = "mean"
    overlap: float = 0.5  # fraction of a chunk that the next one covers again
    channel: int | None = None  # counted from 1; None: the mean of all


def operating_point(card: ModelCard, threshold: float | None, target_far: float | None) -> tuple[float | None, str]:
    """A threshold and its source: the one given, or the one that the fraction `target_far` of dev spoofs passes, or the
    card's.

    Raises UserError when `target_far` is given and the checkpoint has no dev scores.
    """
    if threshold is not None:
        return threshold, "given by --threshold"
    if target_far is None:
        return card.threshold, card.threshold_source
    if card.dev_scores is None:
        raise UserError("--target_far needs the dev scores of a checkpoint trained here", "dev_scores", "none")
    spoof = np.array(card.dev_scores["spoof"])
    return threshold_at_far(spoof, target_far), f"at most {100 * target_far:g} % of {len(spoof)} dev spoofs are above"


@dataclass(frozen=True)
class FileResult:
    """The result of one file. error: why the file could not be read; None if it could."""

    path: Path
    verdict: Literal["bonafide", "spoof", "abstain"] = "abstain"
    score: float | None = None  # higher = more bona fide
    llr: float | None = None  # the calibrated score: natural logarithm of a likelihood ratio, bona fide over spoof
    probability_spoof: float | None = None
    probability_note: str = "no score"
    seconds: float | None = None
    conditions: tuple[Condition, ...] = ()
    regions: tuple[SuspiciousRegion, ...] = ()
    chunks: tuple[ChunkScore, ...] = ()
    error: str | None = None
    sha256: str | None = None  # of the file's bytes; None if they changed while they were read, or gave an error
    reference: Likeness | None = None  # the speaker beside genuine recordings, with --reference

    def to_dict(self) -> dict[str, Any]:
        """Plain values; every key is always there."""
        lists = {name: [item._asdict() for item in getattr(self, name)] for name in ("conditions", "regions", "chunks")}
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "path"}
        likeness = {"reference": self.reference and self.reference.to_dict()}
        return {"file": str(self.path), "utt_id": self.path.stem} | values | lists | likeness


@dataclass(frozen=True)
class Judge:
    """The rules that turn chunk scores into results.

    chunk_seconds: length of the model's input. reference: recordings of the person who is said to speak.
    """

    card: ModelCard
    settings: VerdictSettings
    chunk_seconds: float
    reference: Reference | None = None

    def __call__(
        self,
        path: Path,
        outcome: RecordingFacts | AudioError,
        chunks: Sequence[ChunkScore],
        likenesses: Sequence[ChunkLikeness] = (),
    ) -> FileResult:
        """The result of a file from its facts, or from the error that ended its decoding, and its chunks in order."""
        if isinstance(outcome, AudioError):
            return FileResult(path, conditions=(Condition(outcome.condition, str(outcome)),), error=str(outcome))
        score = self.aggregate(chunks)
        disqualifying = self._disqualifying_conditions(outcome, score)
        return FileResult(
            path,
            "abstain" if disqualifying else self.verdict(score),
            score,
            *self._calibrated(score, len(chunks)),
            outcome.seconds,
            (*disqualifying, *self._weakening_conditions(outcome)),
            tuple(suspicious_regions(chunks, self.settings.threshold)),
            tuple(chunks),
            sha256=outcome.sha256,
            reference=self.reference and self.reference.judge(likenesses),
        )

    def aggregate(self, chunks: Iterable[ChunkScore]) -> float | None:
        """One score of many; None when every chunk is silent."""
        scores = np.array([chunk.score for chunk in chunks if chunk.score is not None])
        return float(AGGREGATES[self.settings.aggregate](scores)) if len(scores) else None

    def verdict(self, score: float) -> Literal["bonafide", "spoof", "abstain"]:
        """The verdict at the threshold; "abstain" where there is none."""
        threshold = self.settings.threshold
        return "abstain" if threshold is None else "bonafide" if score > threshold else "spoof"

    def caution(self) -> str:
        """The sentence about the training data, on which every score depends."""
        if self.card.trained_on is None:
            return "it is not known what these weights were trained on"
        known = f"{self.card.name} was trained on {self.card.trained_on}"
        return f"{known}; it errs far more often on other speech, attacks and channels"

    def header(self) -> dict[str, Any]:
        """The plain values that are the same for all files: schema, model, settings, caution."""
        model = {name: getattr(self.card, name) for name in ("name", "sha256", "trained_on")}
        settings = asdict(self.settings) | {"chunk_seconds": self.chunk_seconds}
        reference = {"reference": self.reference.facts()} if self.reference else {}
        return {"schema": SCHEMA, "model": model, "settings": settings, "caution": self.caution()} | reference

    def _disqualifying_conditions(self, facts: RecordingFacts, score: float | None) -> list[Condition]:
        """At most one condition under which no verdict would mean anything."""
        if score is None:
            return [Condition("silent", "no chunk is louder than -60 dB of full scale")]
        if facts.active_seconds < MIN_ACTIVE_SECONDS:
            detail = f"{facts.active_seconds:.2f} s of sound, at least {MIN_ACTIVE_SECONDS:g} s are needed"
            return [Condition("too_short", detail)]
        if self.settings.threshold is None:
            return [Condition("no_threshold", self.settings.threshold_source)]
        return []

    def _weakening_conditions(self, facts: RecordingFacts) -> list[Condition]:
        """Conditions that make a score less reliable."""
        lost, clipped, active = facts.lost_seconds, 100 * facts.clipped, facts.active_seconds
        joined = ", ".join(f"{seconds:.2f} s" for seconds in facts.joined_at)
        cancelled = facts.cancelled_seconds
        candidates = {
            "truncated": (lost > 0, f"{lost:.2f} of {facts.seconds + lost:.2f} s announced are missing"),
            "damaged": (
                facts.damaged_packets > 0,
                f"{facts.damaged_packets} packets could not be decoded, {facts.gap_seconds:.2f} s are left silent",
            ),
            "unheard": (
                facts.unheard_bytes > 0,
                f"{facts.unheard_bytes:,} bytes follow the sound, nothing decodes them",
            ),
            "joined": (bool(facts.joined_at), f"more sound, judged too, follows an announced end: {joined}"),
            "tracks": (facts.tracks > 1, f"{facts.tracks} audio tracks, judged one after another"),
            "cancelling": (
                facts.cancelled_seconds > 0,
                f"the channels' mean cancels for {cancelled:.2f} s: one is judged",
            ),
            "clipped": (facts.clipped > MAX_CLIPPED, f"{clipped:.2g} % of the samples are at full scale"),
            "short": (MIN_ACTIVE_SECONDS <= active < SHORT_SECONDS, f"only {active:.2f} s of sound"),
            "narrowband": (facts.rate < SAMPLE_RATE, f"sampled at {facts.rate} Hz, the model was trained at 16000 Hz"),
        }
        return [Condition(name, detail) for name, (holds, detail) in candidates.items() if holds]

    def _calibrated(self, score: float | None, chunks: int) -> tuple[float | None, float | None, str]:
        """LLR, probability of spoof, and a note on their source, or why there are none."""
        calibration, prior = self.card.calibration, self.settings.prior_spoof
        if score is None:
            return None, None, "no score"
        if calibration is None:
            return None, None, "the checkpoint carries no calibration"
        if chunks > 1 and self.settings.aggregate in BY_SELECTION:
            return None, None, "calibrated for one chunk: the lowest of several is low by selection"
        llr = float(calibration.llr(score))
        log_odds = llr + math.log((1 - prior) / prior)  # of bona fide
        note = f"calibrated on {self.card.dev_scores_of}, {100 * prior:g} % spoofs expected"
        return llr, 0.5 * (1 - math.tanh(log_odds / 2)), note


def suspicious_regions(chunks: Sequence[ChunkScore], threshold: float | None) -> list[SuspiciousRegion]:
    """Neighbouring chunks at or below the threshold, merged."""
    found, before = [], False
    for chunk in chunks:
        low = threshold is not None and chunk.score is not None and chunk.score <= threshold
        if low and before:
            found[-1] = SuspiciousRegion(found[-1].start, chunk.end, min(found[-1].score, chunk.score))
        elif low:
            found.append(SuspiciousRegion(*chunk))
        before = low
    return found


# ------------------------------------------------------------------------------------------------ words for people

VERDICT_WORDS = {"bonafide": "bona fide", "spoof": "spoof", "abstain": "cannot say"}
LIKENESS_WORDS = {"similar": "similar", "dissimilar": "not similar", "abstain": "cannot say"}


def probability_text(probability: float) -> str:
    """A probability in percent, down to 1 and up to 99: a few hundred dev trials cannot tell more."""
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.1f} %"
    return "above 99 %" if probability > 0.5 else "below 1 %"


def verdict_rows(result: FileResult, judge: Judge) -> list[tuple[str, str]]:
    """(label, text) pairs for a report, a figure or the page."""
    settings = judge.settings
    how = {"min": "lowest", "topk": f"mean of the {LOWEST} lowest"}.get(settings.aggregate, settings.aggregate)
    chunks = "" if len(result.chunks) < 2 else f"{how} of {len(result.chunks)} chunks; "
    threshold = "–" if settings.threshold is None else f"{settings.threshold:.4f}"
    probability = "none" if result.probability_spoof is None else f"{probability_text(result.probability_spoof)} spoof"
    score = "none" if result.score is None else f"{result.score:.4f}   ({chunks}higher = more bona fide)"
    lines = [
        ("verdict", VERDICT_WORDS[result.verdict]),
        ("score", score),
        ("threshold", f"{threshold}   ({settings.threshold_source})"),
        ("probability", f"{probability}   ({result.probability_note})"),
    ]
    lines += [("suspicious", f"{r.start:.2f} – {r.end:.2f} s   (down to {r.score:.4f})") for r in result.regions]
    lines += [("condition", f"{name.replace('_', ' ')}: {detail}") for name, detail in result.conditions]
    if result.reference:
        lines.append(("reference", likeness_text(result.reference)))
    return [*lines, ("caution", judge.caution())]


def verdict_report(result: FileResult, judge: Judge) -> str:
    """Everything about one file, in several lines."""
    seconds = "" if result.seconds is None else f"  ({result.seconds:.2f} s)"
    lines = [f"{printable(result.path)}{seconds}"]
    lines += [f"  {label:<13}{printable(text)}" for label, text in verdict_rows(result, judge)]
    if 1 < len(result.chunks) <= MAX_LISTED_CHUNKS:
        lines.append("  chunks")
        for start, end, score in result.chunks:
            mark = "" if score is None or judge.verdict(score) != "spoof" else "   at or below the threshold"
            lines.append(f"  {start:>10.2f} – {end:.2f} s{'silent' if score is None else f'{score:.4f}':>12}{mark}")
    return "\n".join(lines)


def verdict_line(result: FileResult) -> str:
    """The result in one line."""
    score = "–" if result.score is None else f"{result.score:.4f}"
    names = ", ".join(condition.name.replace("_", " ") for condition in result.conditions)
    if result.reference:
        names = ", ".join(filter(None, [names, f"reference: {LIKENESS_WORDS[result.reference.verdict]}"]))
    return f"{VERDICT_WORDS[result.verdict]:<11}{score:>10}  {printable(result.path)}{f'   ({names})' if names else ''}"
