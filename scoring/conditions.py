"""Properties of a recording that make its score less reliable or meaningless; docs/inference.md lists them."""

from typing import NamedTuple

from audio import SAMPLE_RATE
from audio.reading import RecordingFacts

MIN_ACTIVE_SECONDS = 0.5  # of speech; less cannot be judged
SHORT_SECONDS = 2.0  # of speech; less is weak evidence
MAX_CLIPPED = 0.001  # fraction of samples at full scale


class Condition(NamedTuple):
    """A property of the recording that makes its score less reliable or meaningless."""

    name: str
    detail: str


def disqualifying(
    facts: RecordingFacts, score: float | None, threshold: float | None, threshold_source: str
) -> list[Condition]:
    """At most one condition under which no verdict would mean anything."""
    if score is None:
        return [Condition("silent", "no chunk is louder than -60 dB of full scale")]
    if facts.active_seconds < MIN_ACTIVE_SECONDS:
        detail = f"{facts.active_seconds:.2f} s of sound, at least {MIN_ACTIVE_SECONDS:g} s are needed"
        return [Condition("too_short", detail)]
    if threshold is None:
        return [Condition("no_threshold", threshold_source)]
    return []


def weakening(facts: RecordingFacts) -> list[Condition]:
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
        "cancelling": (cancelled > 0, f"the channels' mean cancels for {cancelled:.2f} s: one is judged"),
        "clipped": (facts.clipped > MAX_CLIPPED, f"{clipped:.2g} % of the samples are at full scale"),
        "short": (MIN_ACTIVE_SECONDS <= active < SHORT_SECONDS, f"only {active:.2f} s of sound"),
        "narrowband": (facts.rate < SAMPLE_RATE, f"sampled at {facts.rate} Hz, the model was trained at 16000 Hz"),
    }
    return [Condition(name, detail) for name, (holds, detail) in candidates.items() if holds]
