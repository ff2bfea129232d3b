"""The page's folder on the disk: one for each server, without what broken-off uploads and killed servers leave."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.files import exclusive

PREFIX = "aasist_page_"
JOBS, UPLOADS = "jobs", "uploads"
NEARLY_FULL = 4 << 20  # bytes: less than this free, and a write has failed because the disk is full
DISK_FULL = "the server's disk is full: try again later"


@contextmanager
def temporary_files() -> Iterator[Path]:
    """Put uploads and everything else that the server writes into one temporary folder, and remove it at the end.

    The folders of servers that were killed are removed at the start. Call it before gradio is imported.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with exclusive(folder):
        for name in (JOBS, UPLOADS):
            (folder / name).mkdir()
        tempfile.tempdir = str(folder / JOBS)
        os.environ |= {"GRADIO_TEMP_DIR": str(folder / UPLOADS), "GRADIO_ANALYTICS_ENABLED": "False"}
        if not os.access(os.path.expanduser("~"), os.W_OK):  # matplotlib would use, and remove, a folder in here
            os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
        try:
            yield folder / UPLOADS
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's servers that no longer run: nobody holds their locks."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError, UserError):  # another one has just removed it, or holds its lock
            # A folder without jobs/ may be one that its server has not locked yet.
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink() or not (folder / JOBS).is_dir():
                continue
            with exclusive(folder, wait=False) as locked:
                if locked:
                    shutil.rmtree(folder, ignore_errors=True)


def remove_old_uploads(folder: Path, seconds: float) -> None:
    """Remove what has not changed in `folder` for so long, whatever it is; gradio removes only what it remembers.

    A job that is running holds links of its own (`held_uploads`).
    """
    latest = time.time() - seconds
    for parent, folders, files in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in [*files, *folders]):
            with suppress(OSError):  # gradio has just removed it, or the folder is not empty
                if path.lstat().st_ctime < latest:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def full_disk_named(folder: str | os.PathLike) -> Iterator[None]:
    """Raises UserError in place of an error of the system or a library that comes from a full disk."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ if isinstance(error, UserError) else error
        nearly_full = shutil.disk_usage(folder).free < NEARLY_FULL  # libsndfile does not tell why it cannot write
        if is_full_disk(cause) or (nearly_full and cause is error):
            raise UserError(DISK_FULL) from error
        raise


def is_full_disk(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
