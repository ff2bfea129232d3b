"""Chunk scores → a file's score, probability, passages and finding.

A finding is "likely_genuine", "unclear", "likely_synthetic", "mixed", or "cannot_say" where a score would mean nothing;
`verdict` is the same in the three words of schema 1. The probability never lies on the other side of 50 % than the
finding. `FileResult.to_dict` is the form in JSON; words.py has the words for people; docs/inference.md explains the
rules.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from metrics.error_rates import threshold_at_far
from scoring.conditions import Condition, disqualifying, error_rate_text, weakening
from scoring.findings import VERDICTS, Finding, next_steps_of, reason_of
from scoring.model_card import ModelCard
from scoring.passages import (
    ChunkScore,
    OddPassage,
    SuspiciousRegion,
    odd_passage,
    passage_text,
    spoken,
    suspicious_regions,
)
from scoring.speaker import ChunkLikeness, Likeness, Reference

SCHEMA = "aasist.inference/2"
LOWEST = 3  # chunks that `topk` averages
AGGREGATES = {
    "mean": np.mean,
    "median": np.median,
    "min": np.min,
    "topk": lambda scores: np.sort(scores)[:LOWEST].mean(),
    "first": lambda scores: scores[0],
}
BY_SELECTION = ("min", "topk")  # the lowest of many chunks is low by selection, not by evidence alone
SURE = 0.9  # a probability beyond it is no longer "unclear"


@dataclass(frozen=True)
class VerdictSettings:
    """The user's choices; docs/inference.md explains them."""

    threshold: float | None  # scores above it are bona fide
    threshold_source: str
    prior_spoof: float = 0.5  # the expected fraction of spoofs
    aggregate: Literal["mean", "median", "min", "topk", "first"] = "mean"
    overlap: float = 0.5  # fraction of a chunk that the next one covers again
    channel: int | None = None  # counted from 1; None: the mean of all
    unclear: float = 0.0  # scores closer to the threshold are unclear


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
    finding: Finding = "cannot_say"
    reason: str = ""  # one sentence: the passage that drives the finding, or why nothing can be said
    next_steps: tuple[str, ...] = ()
    decisive: SuspiciousRegion | None = None  # the passage that drives the finding
    score: float | None = None  # higher = more bona fide
    llr: float | None = None  # the calibrated score: natural logarithm of a likelihood ratio, bona fide over spoof
    probability_spoof: float | None = None  # of a mixed recording: of the decisive passage
    probability_note: str = "no score"
    seconds: float | None = None
    conditions: tuple[Condition, ...] = ()
    regions: tuple[SuspiciousRegion, ...] = ()
    chunks: tuple[ChunkScore, ...] = ()
    error: str | None = None
    sha256: str | None = None  # of the file's bytes; None if they changed while they were read, or gave an error
    reference: Likeness | None = None  # the speaker beside genuine recordings, with --reference

    @property
    def verdict(self) -> Literal["bonafide", "spoof", "abstain"]:
        """The finding in the words of schema 1."""
        return VERDICTS[self.finding]

    @property
    def worst(self) -> SuspiciousRegion | None:
        """The decisive passage, or else the one with the lowest chunk."""
        return self.decisive or min(self.regions, key=lambda region: region.score, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; every key is always there."""
        lists = {name: [item._asdict() for item in getattr(self, name)] for name in ("conditions", "regions", "chunks")}
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "path"}
        others = {
            "verdict": self.verdict,
            "next_steps": list(self.next_steps),
            "passages": len(self.regions),
            "decisive": self.decisive and self.decisive._asdict(),
            "worst": self.worst and self.worst._asdict(),
            "reference": self.reference and self.reference.to_dict(),
        }
        return {"file": str(self.path), "utt_id": self.path.stem} | values | lists | others


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
            conditions = (Condition(outcome.condition, str(outcome)),)
            steps = next_steps_of("cannot_say", None, (outcome.condition,))
            return FileResult(path, reason=str(outcome), next_steps=steps, conditions=conditions, error=str(outcome))
        settings = self.settings
        heard = spoken(chunks, outcome.speech)
        score = self.aggregate(chunks if settings.aggregate == "first" else heard)
        score = self.aggregate(chunks) if score is None else score
        against = disqualifying(outcome, score, settings.threshold, settings.threshold_source)
        conditions = (*against, *weakening(outcome))
        heard = [] if against else heard
        odd = self._odd_passage(heard)
        finding = "cannot_say" if against else "mixed" if odd else self.finding_of(score)
        regions = tuple(suspicious_regions(heard, settings.threshold))
        decisive = odd.region if odd else self._decisive(finding, chunks, regions)
        return FileResult(
            path,
            finding,
            reason_of(finding, against[0].detail if against else "", decisive, heard, regions),
            next_steps_of(finding, decisive, [condition.name for condition in conditions]),
            decisive,
            score,
            *self._calibrated(finding, score, odd, len(chunks)),
            outcome.seconds,
            conditions,
            regions,
            tuple(chunks),
            sha256=outcome.sha256,
            reference=self.reference and self.reference.judge(likenesses),
        )

    def aggregate(self, chunks: Iterable[ChunkScore]) -> float | None:
        """One score of many; None when every chunk is silent."""
        scores = np.array([chunk.score for chunk in chunks if chunk.score is not None])
        return float(AGGREGATES[self.settings.aggregate](scores)) if len(scores) else None

    def finding_of(self, score: float | None) -> Finding:
        """The finding of one score, of a chunk or a file: never "mixed".

        Between the threshold and the score at which the probability is 50 %, it is unclear, however narrow the band.
        """
        threshold, width = self.settings.threshold, self.settings.unclear
        if threshold is None or score is None:
            return "cannot_say"
        genuine = score > threshold
        if width and (abs(score - threshold) <= width or not self._agrees(genuine, score)):
            return "unclear"
        return "likely_genuine" if genuine else "likely_synthetic"

    def probability_spoof(self, score: float) -> float | None:
        """The calibrated probability; None without a calibration."""
        if self.card.calibration is None:
            return None
        prior = self.settings.prior_spoof
        log_odds = float(self.card.calibration.llr(score)) + math.log((1 - prior) / prior)  # of bona fide
        return 0.5 * (1 - math.tanh(log_odds / 2))

    def caution(self, conditions: Sequence[Condition] = ()) -> str:
        """The sentence about the training data, on which every score depends, and how often such audio is misjudged."""
        if self.card.trained_on is None:
            return "it is not known what these weights were trained on"
        known = f"{self.card.name} was trained on {self.card.trained_on}"
        return f"{known}; {error_rate_text(self.card.error_rates or {}, [condition.name for condition in conditions])}"

    def header(self) -> dict[str, Any]:
        """The plain values that are the same for all files: schema, model, settings, caution."""
        model = {name: getattr(self.card, name) for name in ("name", "sha256", "trained_on")}
        settings = asdict(self.settings) | {"chunk_seconds": self.chunk_seconds}
        reference = {"reference": self.reference.facts()} if self.reference else {}
        return {"schema": SCHEMA, "model": model, "settings": settings, "caution": self.caution()} | reference

    def _agrees(self, genuine: bool, score: float) -> bool:
        """Whether the probability, if there is one, is on the side that a genuine or synthetic recording has."""
        probability = self.probability_spoof(score)
        return probability is None or (probability < 0.5 if genuine else probability > 0.5)

    def _odd_passage(self, chunks: Sequence[ChunkScore]) -> OddPassage | None:
        threshold, width = self.settings.threshold, self.settings.unclear
        if threshold is None or self.settings.aggregate == "first":  # which judges the first chunk alone
            return None
        odd = odd_passage(chunks, threshold, width, self.chunk_seconds)
        return odd if odd and self._agrees(False, odd.mean) else None

    def _decisive(
        self, finding: Finding, chunks: Sequence[ChunkScore], regions: Sequence[SuspiciousRegion]
    ) -> SuspiciousRegion | None:
        """The lowest passage, if it is but a part of the recording."""
        if finding not in ("likely_synthetic", "unclear") or not regions:
            return None
        whole = len(regions) == 1 and regions[0].end - regions[0].start >= chunks[-1].end - chunks[0].start
        return None if whole else min(regions, key=lambda region: region.score)

    def _calibrated(
        self, finding: Finding, score: float | None, odd: OddPassage | None, chunks: int
    ) -> tuple[float | None, float | None, str]:
        """LLR, probability of spoof, and a note on their source, or why there are none."""
        if score is None:
            return None, None, "no score"
        if finding == "cannot_say":
            return None, None, "nothing can be said"
        if self.card.calibration is None:
            return None, None, "the checkpoint carries no calibration"
        if not odd and chunks > 1 and self.settings.aggregate in BY_SELECTION:
            return None, None, "calibrated for one chunk: the lowest of several is low by selection"
        about = odd.mean if odd else score
        llr, probability = float(self.card.calibration.llr(about)), self.probability_spoof(about)
        if finding in ("likely_genuine", "likely_synthetic") and not self._agrees(finding == "likely_genuine", score):
            return llr, None, "the calibration puts the score on the other side of 50 % than this threshold"
        if finding == "unclear" and not 1 - SURE <= probability <= SURE:
            return llr, None, "too close to the threshold, which re-encoding may cross"
        note = f"calibrated on {self.card.dev_scores_of}, {100 * self.settings.prior_spoof:g} % spoofs expected"
        return llr, probability, f"of {passage_text(odd.region)}; {note}" if odd else note
