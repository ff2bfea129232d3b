"""Files of a commit out of a local clone: read from git's objects, so that nothing in the clone is run or followed.

    commit = find_commit(Path("clones/openai/whisper"), "c0d2f624c09d")
    save_file(Path("clones/openai/whisper"), commit, "tests/jfk.flac", Path("/tmp/jfk.flac"))

No working tree, filter, hook, attribute, replaced object or server has a say. A symbolic link, a submodule, a Git LFS
pointer and a file above `MAX_BYTES` are refused by name.
"""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError

MAX_BYTES = 1 << 30
SECONDS = 600  # for a call of git, which takes milliseconds
KINDS = {"120000": "a symbolic link", "160000": "a submodule", "040000": "a folder"}  # by the mode in a tree
LFS = b"version https://git-lfs"  # how a pointer begins


@cache
def find_commit(clone: Path, commit: str) -> str:
    """The full id of `commit`, hexadecimal digits of which the first ones will do.

    Branches and tags of that name are no commits. Raises UserError if there is no clone, or not one such commit.
    """
    if not clone.is_dir():
        raise UserError(f"no clone at {clone}")
    objects = git(clone, "rev-parse", f"--disambiguate={commit}").split()
    commits = [name for name in objects if git(clone, "cat-file", "-t", name).strip() == "commit"]
    if len(commits) != 1:
        raise UserError(f"{clone}: commit {commit}", "one that begins so", len(commits) or "none")
    return commits[0]


def save_file(clone: Path, commit: str, file: str, out: Path) -> None:
    """Write the bytes of `file` at `commit`, a full id, to `out`. Raises UserError if they are not there."""
    entry = git(clone, "ls-tree", "-l", "-z", "--full-tree", commit, "--", file).rstrip("\0")
    fields, _, name = entry.partition("\t")
    if name != file:
        raise UserError("not in that commit")
    mode, kind, blob, size = fields.split()
    if kind != "blob" or mode in KINDS:
        raise UserError("cannot be read", "a file", KINDS.get(mode, kind))
    if not size.isdigit() or int(size) > MAX_BYTES:
        raise UserError("the file is too large", f"at most {MAX_BYTES >> 20} MiB", f"{size} bytes")
    with out.open("wb") as target:
        git(clone, "cat-file", "blob", blob, out=target)
    with out.open("rb") as saved:
        if saved.read(len(LFS)) == LFS:
            raise UserError("a Git LFS pointer, without the file")


def git(clone: Path, *arguments: str, out: BinaryIO | int = subprocess.PIPE) -> str:
    """What git prints, if it does not go to `out`. Raises UserError with git's reason when it fails."""
    clone = clone.resolve()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {
        "GIT_CEILING_DIRECTORIES": str(clone.parent),  # the repository around a folder that is no clone is not meant
        "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
    }
    command = ["git", "--no-pager", "-c", "core.precomposeUnicode=false", "-C", os.fspath(clone), *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=environment, timeout=SECONDS
        )
    except FileNotFoundError as error:
        raise UserError("git is not installed", "git, which reads clones", "none") from error
    except subprocess.TimeoutExpired as error:
        raise UserError("git hangs", f"an answer within {SECONDS} s", "none") from error
    if done.returncode:
        said = os.fsdecode(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in said if line.startswith("fatal: ")), said[0])
        if reason.endswith("not allowed"):
            raise UserError(f"{clone} is a partial clone", "the file (`git checkout` of the commit fetches it)", "none")
        raise UserError(f"git {arguments[0]} in {clone}", "an answer", reason)
    return os.fsdecode(done.stdout or b"")
