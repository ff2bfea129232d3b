"""Is all sound of a file heard, or named? Files built by joining, cutting, re-wrapping, shortening and mislabelling.

python tests/test_heard.py 1000 [SEED]      # prints every file of which FFmpeg decodes more, and keeps it in /tmp
"""

import io
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from test_audio import RATE, encode
from test_joined_audio import FORMATS, shortened, written

from audio import reading
from audio.errors import AudioError

SHORTENED = ("flac", "mp3", "au", "wav", "aiff", "caf")
ENDINGS = ("wav", "flac", "mp3", "m4a", "ogg", "webm", "wma", "txt", "bin")
EDGE_SECONDS = 0.25  # of each recording: encoder delay and padding


def noise(rng: np.random.Generator) -> np.ndarray:
    """1 to 4 s (n,) at 16 kHz."""
    return rng.uniform(-0.3, 0.3, int(rng.uniform(1, 4) * RATE)).astype(np.float32)


def originals(folder: Path, rng: np.random.Generator) -> list[bytes]:
    """Whole files of every format; with a length field of 2 s; compressed sound in a WAV and in an AVI."""
    found = [written(folder / "original", noise(rng), ending) for ending in FORMATS]
    long = np.concatenate([noise(rng), noise(rng), noise(rng)])
    found += [shortened(written(folder / "original", long, ending), ending) for ending in SHORTENED]
    for name, codec in (("a.wav", "libmp3lame"), ("a.avi", "libmp3lame"), ("a.mov", "pcm_s16le"), ("a.mp2", "mp2")):
        encode(folder / name, np.repeat(noise(rng), 3), codec, 48_000)
        found.append((folder / name).read_bytes())
    return found


def built(pool: list[bytes], rng: np.random.Generator) -> list[bytes]:
    """The parts of one file: originals, one perhaps cut, perhaps with random bytes somewhere."""
    parts = [pool[number] for number in rng.integers(len(pool), size=rng.integers(1, 4))]
    if rng.random() < 0.3:
        cut = int(rng.integers(len(parts)))
        parts[cut] = parts[cut][: rng.integers(200, len(parts[cut]))]
    if rng.random() < 0.2:
        parts.insert(int(rng.integers(len(parts) + 1)), bytes(rng.integers(0, 256, 5_000, dtype=np.uint8)))
    return parts


def seconds_by_ffmpeg(data: bytes) -> float:
    """What FFmpeg decodes of all audio streams, in one go."""
    seconds = 0.0
    try:
        with av.open(io.BytesIO(data), metadata_errors="ignore") as media:
            for packet in media.demux(*media.streams.audio) if media.streams.audio else ():
                try:
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.FFmpegError:
                    continue
    except av.FFmpegError:
        pass
    return seconds


def unnamed_seconds(path: Path, parts: list[bytes]) -> float:
    """Seconds that FFmpeg decodes and that are neither heard nor named; 0 if no more than usual.

    FFmpeg sometimes plays the headers and codes of a later part as noise: no more counts than of the parts alone.
    """
    recording = reading.Recording(path)
    try:
        for _ in recording:
            pass
    except AudioError:
        return 0.0  # named: there is no verdict
    facts = recording.facts
    if facts.unheard_bytes:
        return 0.0
    decoded = min(seconds_by_ffmpeg(b"".join(parts)), sum(map(seconds_by_ffmpeg, parts)))
    missed = decoded - facts.seconds - facts.lost_seconds
    return missed if missed > len(parts) * EDGE_SECONDS else 0.0


def failures(folder: Path, count: int, seed: int = 0) -> list[tuple[str, float]]:
    """The files, of `count`, of which something goes unheard and unnamed; all others are removed."""
    rng = np.random.default_rng(seed)
    pool, found = originals(folder, rng), []
    for number in range(count):
        parts, path = built(pool, rng), folder / f"{number}.{rng.choice(ENDINGS)}"
        path.write_bytes(b"".join(parts))
        if missed := unnamed_seconds(path, parts):
            found.append((str(path), missed))
        else:
            path.unlink()
    return found


def test_all_sound_is_heard_or_named(tmp_path):
    assert failures(tmp_path, 60) == []


if __name__ == "__main__":
    for path, missed in failures(Path(tempfile.mkdtemp()), int(sys.argv[1]), *map(int, sys.argv[2:])):
        print(f"{path}: {missed:.2f} s unheard")
