"""Write a corpus as ASVspoof 2019 LA unpacks: its files' names, its protocol lines, and a stamp of how it was made.

asvspoof.py reads this layout. `corpus.json`, the stamp, is our addition: it shows which program made the corpus.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.files import write_text

LETTERS = {"train": "T", "dev": "D", "eval": "E"}  # partition → its letter in utterance ids


def protocol_path(folder: Path, partition: str) -> Path:
    ending = "trn" if partition == "train" else "trl"
    return folder / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{partition}.{ending}.txt"


def audio_path(folder: Path, partition: str, utt_id: str) -> Path:
    return folder / f"ASVspoof2019_LA_{partition}" / "flac" / f"{utt_id}.flac"


def asv_scores_path(folder: Path, partition: str) -> Path:
    return folder / "ASVspoof2019_LA_asv_scores" / f"ASVspoof2019.LA.asv.{partition}.gi.trl.scores.txt"


def protocol_line(speaker: str, utt_id: str, attack: str) -> str:
    """A line of a countermeasure protocol; attack "-" is bona fide."""
    return f"{speaker} {utt_id} - {attack} {'bonafide' if attack == '-' else 'spoof'}"


def start_partition(folder: Path, partition: str, lines: Sequence[str]) -> None:
    """Write the partition's protocol and make the empty folder of its audio."""
    audio_path(folder, partition, "").parent.mkdir(parents=True)
    write_text(protocol_path(folder, partition), "".join(f"{line}\n" for line in lines))


def write_stamp(folder: Path, stamp: dict) -> None:
    write_text(folder / "corpus.json", json.dumps(stamp, indent=2) + "\n")


def read_stamp(folder: Path, kind: str) -> dict | None:
    """The stamp of the corpus in `folder`, whose `format` is `kind`; None if the folder is absent or empty.

    Raises UserError when the folder has other content.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        if found["format"] == kind:
            return found
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise UserError(f"will not replace {folder}", f"an {kind} or no such folder", "something else")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it replaces `folder`, else it is removed. A link stays one."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (temporary / "new").mkdir()
        yield temporary / "new"
        if folder.exists():
            folder.rename(temporary / "old")
        (temporary / "new").rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
