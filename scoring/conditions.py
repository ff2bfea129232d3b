"""Properties of a recording that make its score less reliable or meaningless; docs/inference.md lists them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from audio.reading import RecordingFacts

MIN_SPEECH_SECONDS = 0.3  # less cannot be judged
SHORT_SECONDS = 2.0  # of speech; less is weak evidence
NARROW = -40.0  # dB: less is nothing above 4.25 kHz
MAX_CLIPPED = 0.001  # fraction of samples at full scale


class Condition(NamedTuple):
    """A property of the recording that makes its score less reliable or meaningless."""

    name: str
    detail: str


def speech_seconds(facts: RecordingFacts) -> float:
    """Seconds of speech; all of a recording that nobody listened to."""
    return facts.seconds if facts.speech is None else sum(end - start for start, end in facts.speech)


def disqualifying(
    facts: RecordingFacts, score: float | None, threshold: float | None, threshold_source: str
) -> list[Condition]:
    """At most one condition under which no verdict would mean anything."""
    if score is None:
        return [Condition("silent", "no chunk is louder than -60 dB of full scale")]
    spoken = speech_seconds(facts)
    if spoken == 0:
        return [Condition("no_speech", "no speech found: noise, tones and music cannot be judged")]
    if spoken < MIN_SPEECH_SECONDS:
        detail = f"{spoken:.2f} s of speech, at least {MIN_SPEECH_SECONDS:g} s are needed"
        return [Condition("too_short", detail)]
    if threshold is None:
        return [Condition("no_threshold", threshold_source)]
    return []


def weakening(facts: RecordingFacts) -> list[Condition]:
    """Conditions that make a score less reliable."""
    lost, clipped, spoken = facts.lost_seconds, 100 * facts.clipped, speech_seconds(facts)
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
        "short": (MIN_SPEECH_SECONDS <= spoken < SHORT_SECONDS, f"only {spoken:.2f} s of speech"),
        "narrowband": (
            facts.high_band is not None and facts.high_band < NARROW,
            "nothing above 4 kHz, as in telephone speech",
        ),
    }
    return [Condition(name, detail) for name, (holds, detail) in candidates.items() if holds]


KINDS = {  # of audio, by the condition that says so
    "narrowband": "telephone-like recordings",
    "short": f"recordings with less than {SHORT_SECONDS:g} s of speech",
    "clipped": "overloaded recordings",
    "all": "recordings from sources and generators it never met",
}


def error_rate_text(error_rates: Mapping[str, float], conditions: Sequence[str]) -> str:
    """How often the model is wrong on audio with these conditions: the highest rate that its card knows."""
    rates = {name: error_rates[name] for name in ("all", *conditions) if name in error_rates and name in KINDS}
    if "narrowband" in conditions and "narrowband" not in rates:
        return f"how often it errs on {KINDS['narrowband']} is not known, but more often than on others"
    if not rates:
        return "it errs far more often on other speech, attacks and channels"
    name = max(rates, key=lambda name: (name in conditions, rates[name]))
    often = "hardly any" if rates[name] < 0.005 else f"about 1 in {round(1 / rates[name])}"
    return f"{often} {KINDS[name]} {'are' if rates[name] < 0.005 else 'is'} judged wrongly"
