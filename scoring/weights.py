"""Checkpoints by name: where their files are, their hashes, and the download of the official ones."""

import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from common.errors import UserError
from common.files import replacing

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"  # where official checkpoints and exported models are kept
SOURCE = "https://github.com/clovaai/aasist/raw/main/models/weights"
MAX_BYTES = 16 << 20
SILENT_SECONDS, DOWNLOAD_SECONDS = 20, 600  # a server may send nothing for so long, and take so long for the whole file


class KnownCheckpoint(NamedTuple):
    """A checkpoint that users call by a name."""

    sha256: str
    trained_on: str
    threshold: float | None = None  # EER point of the published scores, for a file without a threshold
    recoding_spread: float | None = None  # see ModelCard


_LA = "ASVspoof2019 LA (English, clean, attacks A01–A06)"
OFFICIAL = {  # the authors' own
    "AASIST": KnownCheckpoint(
        "51d2d9cf0738172f61e2a384ec50a54a55363240f67c971ed55a92435bc1a1c0", _LA, 1.4934322834014893, 0.83
    ),
    "AASIST-L": KnownCheckpoint("814331d088032bb4c3fa61cc014789eadeed464209dd094ab3a2dd6ffbdce27a", _LA),
}
BUNDLED = "Whisper-broad"  # the bundled detector: docs/model_card.md
_BROAD = "3.8 hours of speech in many languages: 71 sources of genuine speech, 98 generators"
_MIXED = "73 minutes, mostly English, of seven sources; vocoders, a neural codec, classical synthesizers and A01–A06"
KNOWN = {
    BUNDLED: KnownCheckpoint("12b7527fda1c333034604616c14552d24dc6e4c7232c9b7cf93d42defb907197", _BROAD),
    "LCNN-mixed": KnownCheckpoint("faf0d50a221ead938e1b2c630bda367c9f40cfae3d76dc6bcbdffa06223977a4", _MIXED),
} | OFFICIAL


def locate(model: str) -> Path:
    """The file that `model` names: a path, the bundled checkpoint, or an official one, downloaded if it is missing.

    Raises UserError.
    """
    if Path(model).is_file():
        return Path(model)
    if model in KNOWN:
        if model in OFFICIAL and not checkpoint_path(model).exists():
            _fetch(model)
        return _verified(model)
    found = "a folder" if Path(model).is_dir() else "no regular file" if Path(model).exists() else "nothing there"
    raise UserError(f"cannot read checkpoint {model}", f"a file, or one of {', '.join(KNOWN)}", found)


def checkpoint_path(name: str) -> Path:
    """Where the file of a known checkpoint belongs."""
    return (weights_folder() if name in OFFICIAL else WEIGHTS) / f"{name}.pth"


def weights_folder() -> Path:
    """Where official and exported weights are kept: AASIST_WEIGHTS in the environment, or models/weights."""
    return Path(os.environ.get("AASIST_WEIGHTS") or WEIGHTS)


def file_sha256(path: str | Path) -> str:
    """Raises UserError when the file cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error


def _verified(name: str) -> Path:
    """The path of a known checkpoint. Raises UserError when its hash is wrong."""
    path, expected = checkpoint_path(name), KNOWN[name].sha256
    if (found := file_sha256(path)) != expected:
        origin, remedy = ("official", "delete it") if name in OFFICIAL else ("bundled", "git checkout restores it")
        raise UserError(f"{path} is not the {origin} {name}; {remedy}", f"SHA-256 {expected}", found)
    return path


def _fetch(name: str) -> None:
    url, path = f"{(os.environ.get('AASIST_WEIGHTS_URL') or SOURCE).rstrip('/')}/{name}.pth", checkpoint_path(name)
    data, expected = _download(url, path), KNOWN[name].sha256
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise UserError(f"{url} is not the official {name}", f"SHA-256 {expected}", found)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _download(url: str, path: Path) -> bytes:
    """The content of `url`. Raises UserError, which says that the file can be put at `path` by hand."""
    from http.client import HTTPException
    from urllib.request import urlopen

    from tqdm import tqdm

    data, deadline = bytearray(), time.monotonic() + DOWNLOAD_SECONDS
    try:
        with urlopen(url, timeout=SILENT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
                while block := response.read1(1 << 16):
                    data += block
                    bar.update(len(block))
                    if len(data) > MAX_BYTES:
                        raise UserError(f"{url} is no checkpoint", f"at most {MAX_BYTES} bytes", "more")
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"not done in {DOWNLOAD_SECONDS} s")
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"cannot download {url} ({error}); get it by other means and put it at {path}") from error
    return bytes(data)
