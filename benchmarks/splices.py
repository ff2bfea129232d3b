"""How often a fake passage in genuine speech is found, and how often genuine speech is called mixed.

    python benchmarks/splices.py --model AASIST ../shared/data/LA_mini
    python benchmarks/splices.py --model Whisper-broad ../shared/data/LA_mini ../shared/data/mixed --kept scores.json

Genuine utterances of several speakers, one after another, are a track. A recording is 30–300 s of it, and 2, 4 or 8 s
of one generator's speech, as loud as the track, stand at a random place in every second recording. Half of the
utterances served to choose the rule of scoring/passages.py (`--half tune`), the other half tells what it is worth.
Chunks lie on one grid in all recordings of a track, so those away from the splice are computed once; `--kept` keeps
all chunk scores, so that the rule can be tried again within seconds.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from options import chosen_detector, detector_parser

from audio import SAMPLE_RATE
from audio.levels import power
from audio.reading import RecordingFacts, read
from corpora.asvspoof import ASVspoof2019
from scoring.detector import Detector
from scoring.passages import ChunkScore
from scoring.verdict import FileResult, Judge
from scoring.weights import file_sha256, locate

SECONDS = (2, 4, 8)  # of the splices
LENGTHS = (30, 300)  # of the recordings, s
TRACK_SECONDS = 330


class Splice(NamedTuple):
    """Speech of one generator on a track; start and end in s."""

    attack: str
    start: float
    end: float
    samples: np.ndarray  # (N,) the track around it, on the grid of chunks
    first: int  # the first chunk that it changes


class KeptScores:
    """Chunk scores on disk, by a name for each chunk."""

    def __init__(self, detector: Detector, path: Path | None):
        self.detector, self.path = detector, path
        self.scores = json.loads(path.read_text()) if path and path.exists() else {}

    def of(self, name: str, samples: np.ndarray, hop: int) -> list[float]:
        """The scores of all chunks of `samples` (N,), `hop` samples apart; what is short of a chunk is left."""
        if name not in self.scores:
            windows = np.lib.stride_tricks.sliding_window_view(samples, self.detector.engine.nb_samp)[::hop]
            self.scores[name] = [float(self.detector.score(window[None])[0]) for window in windows]
            if self.path:
                self.path.write_text(json.dumps(self.scores))
        return self.scores[name]


def speech(folders: Sequence[Path], half: str) -> tuple[list[np.ndarray], dict[str, list[np.ndarray]]]:
    """Genuine utterances, and those of each generator, of every second utterance of the data sets."""
    genuine, attacks = [], {}
    for folder in folders:
        corpus = ASVspoof2019(folder, "LA")
        names = ("train", "dev", "eval") if folder.name == "LA_mini" else ("dev",)
        trials = [(corpus.partition(name), trial) for name in names for trial in corpus.partition(name).trials]
        for number, (partition, trial) in enumerate(sorted(trials, key=lambda item: item[1].utt_id)):
            if (number % 2 == 0) == (half == "tune"):
                samples = read(partition.path(trial))
                if trial.key == "bonafide":
                    genuine.append(samples)
                else:
                    attacks.setdefault(trial.attack, []).append(samples)
    return genuine, attacks


def track_of(genuine: list[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """The utterances in random order, again and again in another order, for at least `seconds`."""
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts += [genuine[number] for number in rng.permutation(len(genuine))]
    return np.concatenate(parts)


def splice_into(track: np.ndarray, attack: str, spoof: list[np.ndarray], seconds: float, chunk: int, hop: int, rng):
    """`Splice` of `seconds` of the generator's speech at a random place of the track."""
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts.append(spoof[rng.integers(len(spoof))])
    inserted = np.concatenate(parts)[: round(seconds * SAMPLE_RATE)]
    inserted = inserted * np.float32(np.sqrt(power(track) / power(inserted)))
    start = int(rng.integers(2 * chunk, len(track) - len(inserted) - 2 * chunk))
    end = start + len(inserted)
    first, last = max(0, (start - chunk) // hop + 1), (end - 1) // hop  # chunks that hold some of it
    begin = first * hop
    around = track[begin : last * hop + chunk].copy()
    around[start - begin : end - begin] = inserted
    return Splice(attack, start / SAMPLE_RATE, end / SAMPLE_RATE, around, first)


def recording(scores: list[float], splice: Splice | None, changed: list[float], rng, chunk: int, hop: int):
    """Chunks, and the splice's start and end (s), of 30–300 s of a track, with the splice if there is one."""
    all_scores = list(scores)
    if splice:
        all_scores[splice.first : splice.first + len(changed)] = changed
    seconds = np.exp(rng.uniform(*np.log(LENGTHS)))
    count = min(len(all_scores), max(8, round((seconds * SAMPLE_RATE - chunk) / hop) + 1))
    if splice:
        lowest = max(0, splice.first + len(changed) - count)
        highest = min(splice.first, len(all_scores) - count)
        at = int(rng.integers(min(lowest, highest), highest + 1))
    else:
        at = int(rng.integers(0, len(all_scores) - count + 1))
    starts = np.arange(count) * hop / SAMPLE_RATE
    picked = all_scores[at : at + count]
    chunks = [ChunkScore(float(s), float(s + chunk / SAMPLE_RATE), v) for s, v in zip(starts, picked, strict=True)]
    offset = at * hop / SAMPLE_RATE
    return chunks, (splice.start - offset, splice.end - offset) if splice else None


def recordings(
    kept: KeptScores, folders: list[Path], half: str, number: int, distinct: int, seed: int, more_tracks: int = 0
):
    """(seconds of the splice, attack, chunks, place): `number` with one of `distinct` splices, as many without any."""
    rng = np.random.default_rng(seed)
    chunk = kept.detector.engine.nb_samp
    hop = chunk // 2
    genuine, attacks = speech(folders, half)
    track = track_of(genuine, TRACK_SECONDS, rng)
    base = kept.of(f"{half} track", track, hop)
    names = sorted(attacks)
    splices = []
    for at in range(distinct):
        attack = names[at % len(names)]
        splice = splice_into(track, attack, attacks[attack], SECONDS[at % 3], chunk, hop, rng)
        splices.append((splice, kept.of(f"{half} splice {at}", splice.samples, hop)))
    for at in range(number):
        splice, changed = splices[at % distinct]
        chunks, place = recording(base, splice, changed, rng, chunk, hop)
        yield round(splice.end - splice.start), splice.attack, chunks, place
    others = np.random.default_rng(seed + 1)
    tracks = [base]
    for at in range(more_tracks):
        tracks.append(kept.of(f"{half} track {at}", track_of(genuine, TRACK_SECONDS, others), hop))
    for at in range(number):
        chunks, _ = recording(tracks[at % len(tracks)], None, [], rng, chunk, hop)
        yield 0, "-", chunks, None


def judged(judge: Judge, chunks: list[ChunkScore]) -> FileResult:
    seconds = chunks[-1].end
    facts = RecordingFacts(rate=SAMPLE_RATE, channels=1, seconds=seconds, active_seconds=seconds)
    return judge(Path("recording"), facts, chunks)


def covered(result: FileResult, place: tuple[float, float]) -> float:
    """The fraction of the splice that the decisive passage covers; the whole file if there is none."""
    if result.decisive is None:
        return 1.0
    start, end = max(place[0], result.decisive.start), min(place[1], result.decisive.end)
    return max(0.0, end - start) / (place[1] - place[0])


def report(judge: Judge, made: list) -> None:
    for seconds in (*SECONDS, 0):
        results = [(judged(judge, chunks), place) for kind, _, chunks, place in made if kind == seconds]
        words = [result.finding for result, _ in results]
        counts = {word: words.count(word) for word in sorted(set(words))}
        found = [(r, place) for r, place in results if r.finding in ("mixed", "likely_synthetic")]
        kind = f"{seconds} s" if seconds else "genuine"
        line = f"{kind:<8} n {len(results):>4}  called fake {len(found) / len(results):.1%}"
        if seconds and found:
            half = np.mean([covered(*item) >= 0.5 for item in found])
            extra = np.mean([r.decisive.end - r.decisive.start for r, _ in found if r.decisive] or [0])
            line += f"  passage covers half of it {half:.1%}, lasts {extra:.1f} s"
        print(f"{line}  {counts}")


def main() -> None:
    parser = detector_parser(__doc__)
    parser.add_argument("--half", choices=("tune", "report"), default="report")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--distinct", type=int, default=100, help="splices")
    parser.add_argument("--more_tracks", type=int, default=2, help="for recordings without a splice")
    parser.add_argument("--unclear", type=float)
    parser.add_argument("--kept", type=Path)
    args = parser.parse_args()
    detector = chosen_detector(args)
    judge = detector.judge(unclear=args.unclear)
    kept = KeptScores(detector, args.kept)
    print(f"{args.model} {file_sha256(locate(args.model))[:8]}, {args.half}, unclear: {judge.settings.unclear:.2f}")
    report(judge, list(recordings(kept, args.folders, args.half, args.number, args.distinct, 1, args.more_tracks)))


if __name__ == "__main__":
    main()
