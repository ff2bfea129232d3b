"""A list of recordings: which file of which repository a clip is cut from, its licence, class and generator.

    clips = read_list(BUNDLED)

docs/rebuild.md describes the columns.
"""

import csv
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from audio import SAMPLE_RATE
from audio.reading import MAX_SECONDS
from common.errors import UserError
from common.text_files import read_lines

# Every recording that the bundled detector was trained on: the folds' and bona fide ones out of software packages.
BUNDLED, PROMPTS = (Path(__file__).with_name(f"{name}.csv") for name in ("bundled_recordings", "spoken_prompts"))
LONGEST = 60.0  # s of a clip
COLUMNS = ("clip", "class", "generator", "repository", "commit", "file", "licence", "language", "speaker", "offset")
COLUMNS += ("seconds",)
# What the cells of a row may be that decide which file is read or written; repository: OWNER/NAME of GitHub where there
# is a commit, else the name of a data set or corpus.
NAME = re.compile(r"\w[\w.-]*", re.ASCII)
REPOSITORY = re.compile(r"\w[\w-]*/[\w.-]*\w[\w.-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True)
class ListedFile:
    """A recording: a file of a commit, or without a commit of a data set as it unpacks."""

    repository: str
    commit: str
    file: str

    def __str__(self) -> str:
        return " ".join(filter(None, (self.repository, self.commit, self.file)))


@dataclass(frozen=True)
class ListedClip:
    """A row of the list."""

    name: str
    key: str
    attack: str
    source: ListedFile  # its file is "" where only the corpus is known
    licence: str
    language: str
    speaker: str
    offset: float | None  # s
    seconds: float

    @property
    def samples(self) -> int:
        return round(self.seconds * SAMPLE_RATE)


# ---- the list -----------------------------------------------------------------------------------------------------


def read_list(path: Path) -> list[ListedClip]:
    """The clips of a CSV file with `COLUMNS`. Raises UserError that names the first bad row."""
    try:
        table = csv.DictReader(f"{line}\n" for line in read_lines(path))
        rows = list(table)
    except csv.Error as error:
        raise UserError(f"cannot read {path}", "a CSV file", error) from error
    if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
        raise UserError(f"{path}", f"columns {', '.join(COLUMNS)}", f"no {', '.join(missing)}")
    clips = [read_row(row, f"{path}: clip {row['clip']}") for row in rows]
    if twice := [name for name, count in Counter(clip.name for clip in clips).items() if count > 1]:
        raise UserError(f"{path}: clip {twice[0]}", "each name once", "it twice")
    return clips


def read_row(row: dict[str, str], where: str) -> ListedClip:
    """Raises UserError for a row that is no clip, or that leads out of the clone or the corpus."""
    if any(row[name] is None for name in COLUMNS):
        raise UserError(where, f"{len(COLUMNS)} cells", "fewer")
    source = ListedFile(row["repository"], row["commit"], row["file"])
    inside = PurePosixPath(source.file)
    checks = (
        ("clip", NAME.fullmatch(row["clip"]), "a name of letters, digits and ._-"),
        ("class", row["class"] in ("bonafide", "spoof"), "bonafide or spoof"),
        ("commit", not source.commit or COMMIT.fullmatch(source.commit), "hexadecimal digits"),
        ("repository", not source.commit or REPOSITORY.fullmatch(source.repository), "OWNER/NAME"),
        ("repository", source.commit or not source.file or NAME.fullmatch(source.repository), "a folder's name"),
        ("file", source.file or not source.commit, "a file's path"),
        ("file", source.file.isprintable() and ".." not in inside.parts, "a path inside the repository"),
        ("file", not inside.is_absolute() and str(inside) in (source.file, "."), "a path inside the repository"),
    )
    for name, good, expected in checks:
        if not good:
            raise UserError(f"{where}: {name}", expected, repr(row[name]))
    offset = read_number(row, "offset", where, 0, MAX_SECONDS) if row["offset"] else None
    seconds = read_number(row, "seconds", where, 0.1, LONGEST)
    texts = (row[name] for name in ("licence", "language", "speaker"))
    return ListedClip(row["clip"], row["class"], row["generator"] or "-", source, *texts, offset, seconds)


def read_number(row: dict[str, str], name: str, where: str, low: float, high: float) -> float:
    try:
        number = float(row[name])
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise UserError(f"{where}: {name}", f"{low:g} to {high:g} s", repr(row[name]))
    return number


def by_file(clips: Sequence[ListedClip]) -> dict[ListedFile, list[ListedClip]]:
    """The clips of each file, sorted by repository; those without a file are left out."""
    found = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: (clip.source.repository, clip.source.commit)):
        if clip.source.file:
            found[clip.source].append(clip)
    return found


def source_lines(clips: Sequence[ListedClip], clones: Path) -> Iterator[str]:
    """Lines of a shell that clone what the list names, and comments for what is no repository."""
    commits, counts, licences = defaultdict(dict), Counter(), defaultdict(dict)
    for clip in clips:
        repository = clip.source.repository
        counts[repository] += 1
        licences[repository][clip.licence] = None
        commits[repository][clip.source.commit if clip.source.file else None] = None
    for repository in sorted(commits, key=lambda name: (None in commits[name], "" in commits[name], name)):
        note = f"{counts[repository]:,} clips, {'; '.join(licences[repository])}"
        folder = shlex.quote(str(clones / repository))
        if None in commits[repository]:
            yield f"# {repository}: {note}; files not known, cannot be rebuilt"
        elif "" in commits[repository]:
            yield f"# {repository}: {note}; unpack the data set in {folder}"
        else:
            yield f"# {note}"
            # Without the files of other commits; checkout then fetches those of its own at once.
            address = shlex.quote(f"https://github.com/{repository}")
            yield f"git clone --filter=blob:none --no-checkout {address} {folder}"
            yield from (f"git -C {folder} checkout --quiet {commit}" for commit in commits[repository])
