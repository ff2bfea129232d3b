"""Whole data sets scored with one checkpoint; a stopped run goes on where it stopped.

comprehensive_eval.py is the command; eval_results.py evaluates the scores.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.escaping import printable
from common.files import content_hashes, naming, write_text
from corpora.open import KINDS
from corpora.trials import Partition
from corpora.waveforms import Waveforms
from data_utils import preflight, tolerant_loader
from metrics.column_files import require_plain
from metrics.scores import Labels
from metrics.tandem import AsvScores
from scoring.detector import Detector
from scoring.weights import file_sha256, locate

PARTIAL = "scores.partial"  # the scores so far; removed when a run is complete
HASHES = "audio.sha256"  # of the files that the scores are of: lines `hash utt_id`


@dataclass(frozen=True)
class EvalSet:
    """A partition that is scored whole, and its trials as columns."""

    name: str  # of its results folder
    partition: Partition
    trials: Labels
    asv: AsvScores | None
    notes: list[str]

    @classmethod
    def load(cls, kind: str, root: Path, max_files: int | None) -> "EvalSet":
        """The eval partition of a data set, or `max_files` of its trials spread evenly over it.

        Raises UserError for a data set that cannot be evaluated.
        """
        data_set = KINDS[kind](root)
        partition = data_set.partition("all" if "all" in data_set.partitions else "eval")
        if (count := len(partition.trials)) > (max_files or count):
            partition = partition.take(np.arange(max_files) * count // max_files)
        notes = preflight([replace(partition, name=data_set.title)], kind)
        return cls(data_set.title, partition, partition.table(), partition.asv_scores(), notes)

    def keys(self) -> list[str]:
        """`bonafide` or `spoof` of each trial."""
        return [trial.key for trial in self.partition.trials]


@dataclass(frozen=True)
class EvalRun:
    """One checkpoint that is evaluated on whole data sets, and how."""

    detector: Detector
    checkpoint: str  # as given: a file or a name
    name: str  # of the system in results
    output_dir: Path
    batch_size: int  # utterances scored at a time
    num_workers: int  # processes that decode audio
    max_files: int | None
    bootstrap: int  # resamples
    compare: Sequence[str]  # other systems in output_dir

    def folder(self, eval_set: EvalSet) -> Path:
        """The results folder of this system on a data set."""
        return self.output_dir / self.name / eval_set.name

    def identity(self, eval_set: EvalSet) -> dict:
        """The values that decide a run's scores; a run with equal ones may go on from its partial scores."""
        names, attacks = eval_set.trials.utt_id.tolist(), eval_set.trials.attack.tolist()
        return {
            "checkpoint_sha256": file_sha256(locate(self.checkpoint)),
            "trials": len(names),
            "trials_sha256": hashlib.sha256(repr([names, attacks, eval_set.keys()]).encode()).hexdigest(),
            "batch_size": self.batch_size,
            "device": self.detector.engine.device,
        }


class ScoredSet(NamedTuple):
    """By utt_id: scores, the SHA-256 of each scored file, and the errors of unreadable ones."""

    scores: dict[str, float]
    hashes: dict[str, str]
    errors: dict[str, str]


def score_eval_set(run: EvalRun, eval_set: EvalSet, identity: dict) -> ScoredSet:
    """Score what an earlier run has not scored. Each batch goes to the partial file when it is scored.

    A batch that is not in the partial file whole is scored again whole, so that a resumed run gives the same bits.
    Raises UserError for a score that is not finite, and when the partial file cannot be written.
    """
    names, size, folder = eval_set.trials.utt_id.tolist(), run.batch_size, run.folder(eval_set)
    scores, hashes = resume(folder, identity, eval_set.partition.files)
    errors = {}
    batches = [list(range(start, min(start + size, len(names)))) for start in range(0, len(names), size)]
    to_do = [batch for batch in batches if not all(names[row] in scores for row in batch)]
    if not to_do:
        return ScoredSet(scores, hashes, errors)
    loader = tolerant_loader(Waveforms(eval_set.partition), run.detector.engine.nb_samp, run.num_workers, to_do)
    done = len(names) - sum(map(len, to_do))
    bar = tqdm(desc=eval_set.name, total=len(names), initial=done, unit="utt", disable=None)
    with naming(folder / PARTIAL), (folder / PARTIAL).open("a", encoding="utf-8") as file, bar:
        for batch, (waveforms, problems, found) in zip(to_do, loader, strict=True):
            errors |= {names[row]: str(problem) for row, problem in zip(batch, problems, strict=True) if problem}
            known = {
                names[row]: f or "-" for row, problem, f in zip(batch, problems, found, strict=True) if not problem
            }
            values = run.detector.score([waveforms]).tolist() if known else []
            _require_finite([*known], values)
            scores |= zip(known, values, strict=True)
            hashes |= known
            file.writelines(f"{name} {known[name]} {value!r}\n" for name, value in zip(known, values, strict=True))
            file.flush()
            bar.update(len(batch))
    return ScoredSet(scores, hashes, errors)


def _require_finite(names: list[str], values: list[float]) -> None:
    if bad := [name for name, value in zip(names, values, strict=True) if not np.isfinite(value)]:
        raise UserError(f"bad score of {bad[0]}", "a finite number (is the checkpoint sound?)", "NaN or infinity")


def resume(folder: Path, identity: dict, files: Mapping[str, Path]) -> tuple[dict[str, float], dict[str, str]]:
    """Scores and file hashes that an earlier run of the same `identity` left; starts the partial file with them.

    files: by utt_id; scores of files that have changed since are left out, and a note counts them.
    """
    partial, header = folder / PARTIAL, json.dumps(identity)
    scores, hashes = {}, {}
    if partial.exists():
        first, *lines = partial.read_bytes().decode(errors="replace").split("\n")
        if first == header:
            scores, hashes = _parse(lines[:-1])  # the last line is empty, or a killed run wrote only part of it
        else:
            note = f"note: {partial} is of another checkpoint or other trials: starting anew"
            print(printable(note), file=sys.stderr)
    elif _identity_of(folder) == identity:
        scores, hashes = _complete(folder)
        note = "going on from the scores" if scores else f"starting anew: no {HASHES} says which audio was scored"
        print(printable(f"note: {note} in {folder}{'; remove it to score anew' * bool(scores)}"), file=sys.stderr)
    for name in _changed(folder, hashes, files):
        del scores[name], hashes[name]
    write_text(partial, header + "\n" + "".join(f"{name} {hashes[name]} {scores[name]!r}\n" for name in scores))
    return scores, hashes


def _changed(folder: Path, hashes: dict[str, str], files: Mapping[str, Path]) -> list[str]:
    """The utterances whose file is no longer the one that was scored; a note counts them."""
    paths = [files.get(name, "") for name in hashes]
    found = tqdm(content_hashes(paths), "check scored files", len(paths), delay=1, leave=False, disable=None)
    changed = [name for (name, scored), now in zip(hashes.items(), found, strict=True) if now != scored]
    if changed:
        note = f"note: {len(changed)} of {len(hashes)} files have changed since {folder} was made: scored anew"
        print(printable(note), file=sys.stderr)
    return changed


def _parse(lines: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Scores and file hashes by utt_id from lines `utt_id hash score`, up to the first damaged one."""
    scores, hashes = {}, {}
    for line in lines:
        try:
            name, sha256, value = line.split()
            require_plain(value)
            score = float(value)
        except ValueError:
            break
        if not np.isfinite(score):
            break
        scores[name], hashes[name] = score, sha256
    return scores, hashes


def _complete(folder: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Scores and file hashes of the complete run in `folder`; none of an older version, which kept no hashes."""
    try:
        known = dict(line.split()[::-1] for line in (folder / HASHES).read_text(encoding="utf-8").splitlines())
        scores = [line.split() for line in (folder / "scores.txt").read_text(encoding="utf-8").splitlines()]
        return _parse(f"{name} {known[name]} {value}" for name, *_, value in scores)
    except (OSError, ValueError, KeyError):
        return {}, {}


def _identity_of(folder: Path) -> dict | None:
    """The identity of the complete run in `folder`, if there is one."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics["run"] if (folder / "scores.txt").exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
