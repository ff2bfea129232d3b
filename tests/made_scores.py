"""Helpers of the tests of metrics: made-up scores, and the evaluation command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluation as ev

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"
SCORES = SHARED / "fixtures" / "scores"
needs_shared = pytest.mark.skipif(not SCORES.is_dir(), reason=f"published score files not found in {SCORES}")


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "evaluation.py", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


def toy(n_bonafide: int = 60, n_spoof: int = 90, seed: int = 0, shift: float = 2.0) -> ev.Scores:
    """Two attacks, four speakers, overlapping Gaussian scores."""
    rng = np.random.default_rng(seed)
    n = n_bonafide + n_spoof
    is_bonafide = np.arange(n) < n_bonafide
    return ev.Scores(
        utt_id=np.array([f"U{row:04d}" for row in range(n)]),
        score=rng.normal(np.where(is_bonafide, shift, 0.0)),
        is_bonafide=is_bonafide,
        attack=np.where(is_bonafide, "-", np.where(np.arange(n) % 2, "A01", "A02")),
        groups={"speaker": np.array([f"S{row % 4}" for row in range(n)])},
    )


def lines_of(scores: ev.Scores, form: str = "{u} {a} {k} {s!r}") -> str:
    keys = np.where(scores.is_bonafide, "bonafide", "spoof")
    speakers = scores.groups["speaker"]
    rows = zip(scores.utt_id, scores.attack, keys, scores.score.tolist(), speakers, strict=True)
    return "".join(form.format(u=u, a=a, k=k, s=s, p=p) + "\n" for u, a, k, s, p in rows)
