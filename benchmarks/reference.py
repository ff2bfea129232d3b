"""What `inference.py --reference` adds to a detector's verdict, on speakers with several genuine recordings.

    python benchmarks/reference.py ../shared/data/LA_mini ../shared/data/mixed

The claims are dev and eval utterances: each genuine one against the person's other genuine recordings, each spoof that
aims at this person (its protocol's speaker) against all of them, and utterances of two other speakers. References hold
at least 10 s. Prints a table: of how many claims the detector says spoof, the reference says not similar, and either.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.command import run
from corpora.open import open_partition
from corpora.trials import Trial
from scoring.detector import Detector
from scoring.speaker import ChunkLikeness, Encoder, Reference
from scoring.verdict import FileResult
from scoring.weights import BUNDLED


class Claims:
    """The utterances of a data set: the detector's result and the parts of a reference, each computed once."""

    def __init__(self, data_set: str, detector: Detector, encoder: Encoder):
        self.genuine, self.claims = defaultdict(list), []
        self.parts: dict[str, Reference] = {}
        self.results: dict[str, FileResult] = {}
        self.detector, self.encoder, self.judge = detector, encoder, detector.judge(unclear=0.0)
        self.files = {}
        for name in ("train", "dev", "eval"):
            partition = open_partition([data_set], "LA", name)
            self.files |= {trial.utt_id: partition.path(trial) for trial in partition.trials}
            for trial in partition.trials:
                if trial.key == "bonafide":
                    self.genuine[trial.speaker].append(trial)
                if name != "train":
                    self.claims.append(trial)

    def part(self, trial: Trial) -> Reference:
        if trial.utt_id not in self.parts:
            files, length = [self.files[trial.utt_id]], self.detector.engine.nb_samp
            self.parts[trial.utt_id] = Reference.of_files(files, length, self.encoder)
        return self.parts[trial.utt_id]

    def reference(self, speaker: str, without: Trial | None = None) -> Reference:
        parts = [self.part(trial) for trial in self.genuine[speaker] if trial != without]
        embeddings = np.concatenate([np.empty((0, 256)), *(part.embeddings for part in parts)])
        numbers = [number for number, part in enumerate(parts) for _ in part.embeddings]
        return Reference(embeddings, numbers, sum(part.seconds for part in parts), self.encoder)

    def answer(self, trial: Trial, reference: Reference) -> tuple[bool, bool] | None:
        """Whether the detector says spoof, and the reference not similar; None where one of them cannot say."""
        embeddings = self.part(trial).embeddings
        likeness = reference.judge([ChunkLikeness(0, 0, float(e @ reference.centre)) for e in embeddings])
        if trial.utt_id not in self.results:
            self.results[trial.utt_id] = self.detector.score_file(self.files[trial.utt_id], self.judge)
        result = self.results[trial.utt_id]
        if "abstain" in (likeness.verdict, result.verdict):
            return None
        return result.verdict == "spoof", likeness.verdict == "dissimilar"

    def table(self) -> dict[str, list[tuple[bool, bool]]]:
        """The answers by kind of claim."""
        answers = defaultdict(list)
        speakers = [speaker for speaker, trials in self.genuine.items() if len(trials) >= 3]
        for trial in self.claims:
            if trial.speaker not in speakers:
                continue
            place = speakers.index(trial.speaker)
            if trial.key == "bonafide":
                answers["genuine"].append(self.answer(trial, self.reference(trial.speaker, trial)))
                for step in (1, 2):
                    other = self.reference(speakers[(place + step) % len(speakers)])
                    answers["genuine, of another person"].append(self.answer(trial, other))
            else:
                answer = self.answer(trial, self.reference(trial.speaker))
                answers["spoof"].append(answer)
                answers[f"spoof, {trial.attack}"].append(answer)
        return {kind: [answer for answer in found if answer] for kind, found in sorted(answers.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_sets", nargs="+")
    parser.add_argument("--model", default=BUNDLED)
    args = parser.parse_args()
    detector, encoder = Detector.from_checkpoint(args.model, "cpu"), Encoder()
    print("| data set | claim | number | detector: spoof % | reference: not similar % | either % |")
    print("|---|---|---|---|---|---|")
    for data_set in args.data_sets:
        for kind, answers in Claims(data_set, detector, encoder).table().items():
            if answers:
                found = np.array(answers)
                values = [100 * column.mean() for column in (*found.T, found.any(axis=1))]
                numbers = " | ".join(f"{value:.0f}" for value in values)
                print(f"| {Path(data_set).name} | {kind} | {len(found)} | {numbers} |", flush=True)


if __name__ == "__main__":
    run(main)
