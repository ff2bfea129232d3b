"""Is it this person? The similarity of a recording's speaker to recordings that are known to be genuine.

A detector fails on generators it never met; a reference does not depend on the generator (Pianese et al., arXiv
2209.14098). The speaker encoder is Resemblyzer's, a d-vector (Wan et al., arXiv 1710.10467), whose Python package
carries its weights; the network is computed here, since the package itself needs librosa and webrtcvad.

Similarity is the cosine between a chunk's embedding and the mean of the references'. What it means for this person is
told by the references themselves: the similarities of their chunks to the other recordings, taken as a sample of a
normal distribution. docs/inference.md says what that can show, and how often it erred. It never proves an identity.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from audio import SAMPLE_RATE
from audio.chunks import Chunker
from audio.decoding_workers import recordings
from audio.errors import AudioError
from common.errors import UserError

INSTALL = "pip install --no-deps -r requirements-speaker.txt"
MIN_SECONDS = 10.0  # of sound in the references
UNLIKE = 0.05  # a recording is unlike the person's own if it is as similar as fewer of them are
# The standard deviation of a person's own similarities, as if seen in so many chunks before the references: of a few
# chunks alone it would be a guess.
USUAL_DEVIATION, USUAL_COUNT = 0.05, 4
WINDOW, HOP, MELS = 400, 160, 40  # samples, samples, mel filters
PART, PART_HOP = 160, 77  # frames: the encoder reads parts of 1.6 s
LOUDNESS = 10 ** (-30 / 20)  # RMS to which quiet sound is raised


class ChunkLikeness(NamedTuple):
    """A chunk's start and end (seconds), and the similarity of its speaker to the references'."""

    start: float
    end: float
    similarity: float


@dataclass(frozen=True)
class Likeness:
    """The speaker of a recording beside the references. recordings, seconds: what it rests on."""

    verdict: Literal["similar", "dissimilar", "abstain"]
    statement: str
    similarity: float | None  # the mean over the chunks
    own_below: float | None  # fraction of the person's own recordings that would be less similar than this one
    recordings: int
    seconds: float
    chunks: tuple[ChunkLikeness, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"chunks": [chunk._asdict() for chunk in self.chunks]}


class Encoder:
    """(T,) samples at 16 kHz → an embedding (256,) of length 1. Raises UserError when Resemblyzer is not installed."""

    def __init__(self):
        import torch

        from models.Whisper_Stats import mel_filters

        package = find_spec("resemblyzer")  # not imported: it would need packages that nothing here uses
        if package is None:
            raise UserError("--reference needs Resemblyzer, the speaker encoder", INSTALL, "not installed")
        path = Path(package.origin).with_name("pretrained.pt")
        weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self.lstm, self.linear = torch.nn.LSTM(MELS, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
        for name, module in (("lstm.", self.lstm), ("linear.", self.linear)):
            module.load_state_dict({key.removeprefix(name): x for key, x in weights.items() if key.startswith(name)})
        self.filters = mel_filters(MELS, np.arange(WINDOW // 2 + 1) * SAMPLE_RATE / WINDOW)  # (MELS, bins)
        self.window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        import torch
        import torch.nn.functional as F

        parts = self._parts(self._mel(samples))
        with torch.inference_mode():
            _, (hidden, _) = self.lstm(torch.from_numpy(parts))
            embeddings = F.normalize(F.relu(self.linear(hidden[-1])))  # (parts, 256)
            return F.normalize(embeddings.mean(dim=0), dim=0).numpy()

    def _mel(self, samples: np.ndarray) -> np.ndarray:
        """Power in mel bands, (frames, MELS), as librosa computes it."""
        rms = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
        samples = np.pad(samples * max(1.0, LOUDNESS / max(rms, 1e-9)), WINDOW // 2)
        frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * self.window
        return (np.abs(np.fft.rfft(frames)) ** 2 @ self.filters.T).astype(np.float32)

    @staticmethod
    def _parts(mel: np.ndarray) -> np.ndarray:
        """(frames, MELS) → (parts, PART, MELS); a last part of less than three quarters is left out."""
        starts = [start for start in range(0, len(mel), PART_HOP) if start == 0 or len(mel) - start >= 0.75 * PART]
        mel = np.pad(mel, ((0, PART), (0, 0)))
        return np.stack([mel[start : start + PART] for start in starts])


class Reference:
    """Genuine recordings of one person.

    embeddings: of all chunks, (n, 256); recording: the number of the recording of each; seconds: of sound in them;
    sha256: of the files' hashes.
    """

    def __init__(
        self, embeddings: np.ndarray, recording: Sequence[int], seconds: float, encoder: Encoder, sha256: str = ""
    ):
        self.sha256 = sha256
        self.embeddings, self.recording, self.seconds = embeddings, np.asarray(recording), seconds
        self.recordings, self.encoder = len(set(recording)), encoder
        self.centre = _direction(embeddings.mean(axis=0)) if len(embeddings) else np.zeros(256)

    @classmethod
    def of_files(cls, files: Sequence[Path], nb_samp: int, encoder: Encoder | None = None) -> "Reference":
        """Read, cut into chunks of `nb_samp`, and embed. Raises UserError when a file cannot be read."""
        encoder = encoder or Encoder()
        embeddings, numbers, seconds, hashes = [], [], 0.0, []
        for number, (path, recording) in enumerate(recordings(files, 0, None)):
            chunker, chunks = Chunker(nb_samp, nb_samp), []
            try:
                for block in recording:
                    chunks.extend(chunker.feed(block)[0])
                chunks.extend(chunker.end()[0])
            except AudioError as error:
                raise UserError(f"--reference {path}: {error}") from error
            seconds += recording.facts.active_seconds
            hashes.append(str(recording.facts.sha256))
            own = [encoder(chunk) for chunk in chunks if np.abs(chunk).max() > 1e-3]
            embeddings += own
            numbers += [number] * len(own)
        sha256 = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
        return cls(np.array(embeddings).reshape(-1, 256), numbers, seconds, encoder, sha256)

    @cached_property
    def own(self) -> np.ndarray:
        """The similarity of each chunk to the mean of the other recordings, or of its own if there is only one."""
        others = (
            self.recording[:, None] != self.recording
            if self.recordings > 1
            else ~np.eye(len(self.recording), dtype=bool)
        )
        means = others.astype(float) @ self.embeddings  # (n, 256)
        return (_direction(means) * self.embeddings).sum(axis=1)

    def similarity(self, samples: np.ndarray) -> float:
        """Of the speaker of a chunk to the references, a cosine."""
        return float(self.encoder(samples) @ self.centre)

    def judge(self, chunks: Sequence[ChunkLikeness]) -> Likeness:
        """A recording by its chunks that are not silent."""
        facts = (self.recordings, self.seconds, tuple(chunks))
        if self.seconds < MIN_SECONDS or len(self.own) < 2:
            statement = f"cannot say: the references hold {self.seconds:.1f} s of sound, {MIN_SECONDS:g} s are needed"
            return Likeness("abstain", statement, None, None, *facts)
        if not chunks:
            return Likeness("abstain", "cannot say: no sound", None, None, *facts)
        similarity = float(np.mean([chunk.similarity for chunk in chunks]))
        below = self.own_below(similarity)
        if below >= UNLIKE:
            like = f"about {100 * below:.0f} % of them would be less similar"
            statement = f"as similar as this person's own recordings are to each other ({like})"
        else:
            most = "99 % and more" if below < 0.01 else f"{100 * (1 - below):.0f} %"
            statement = f"less similar than {most} of this person's own recordings"
        return Likeness("similar" if below >= UNLIKE else "dissimilar", statement, similarity, below, *facts)

    def own_below(self, similarity: float) -> float:
        """The fraction of this person's own recordings that would be less similar: Student's distribution."""
        from scipy.special import stdtr

        count, freedom = len(self.own), len(self.own) - 1 + USUAL_COUNT
        squares = np.square(self.own - self.own.mean()).sum() + USUAL_COUNT * USUAL_DEVIATION**2
        deviation = np.sqrt(squares / freedom * (1 + 1 / count))  # of one more recording from the mean
        return float(stdtr(freedom, (similarity - self.own.mean()) / deviation))

    def facts(self) -> dict[str, Any]:
        """For the head of a results file: which references these were."""
        return {"recordings": self.recordings, "seconds": round(self.seconds, 2), "sha256": self.sha256}


def _direction(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis, of length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def is_installed() -> bool:
    """Whether there is a speaker encoder."""
    return find_spec("resemblyzer") is not None


def likeness_text(likeness: Likeness) -> str:
    """One line for people."""
    count = f"{likeness.recordings} recording{'s' if likeness.recordings != 1 else ''}, {likeness.seconds:.0f} s"
    return f"{likeness.statement}; {count}; no proof of identity"
