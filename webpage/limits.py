"""Every limit that visitors of the page meet: upload size, length, number of files, queue, waiting time.

Options of `gradio_app.py` set those in `PageLimits`; the others are the same on every server. Two limits are elsewhere:
memory and time of the process that decodes uploads (audio/decoding_workers.py), and the longest recording that is drawn
with waveform and spectrogram (plots/recording.py).
"""

from dataclasses import dataclass

MAX_FILES = 500  # checked together in "Several files"
MAX_COMPARED_MODELS = 6
MAX_CHUNK_BUTTONS = 240  # more buttons are too many to use; the figure shows every chunk
MAX_JOBS = 2  # visitors served at a time: one recording is scored while the figures of another are drawn
JOB_QUEUE = {"concurrency_id": "jobs", "concurrency_limit": MAX_JOBS}  # gradio's options of every event that is a job
MAX_QUEUE = 64  # visitors who wait; the page asks any others to come back later
MAX_LOADED_MODELS = 2  # kept in memory, for all visitors: the one in use and the one it is compared with
SILENT_CLIENT_SECONDS = 10  # clients silent for this long are dropped, and their jobs with them
SILENT_UPLOAD_SECONDS = 30  # an upload that stands still for this long is dropped
MAX_REQUEST_BYTES = 4 << 20  # of every request but an upload; 500 files are about 300 kB
MAX_LOGINS = 5  # that fail; then the address is locked out until the first of them is this old:
LOGIN_LOCK_SECONDS = 300
LOGIN_DELAY_SECONDS = 1  # before the answer to a login that fails
MAX_ADDRESSES = 10_000  # whose failed logins are remembered


@dataclass(frozen=True)
class PageLimits:
    """The limits that a server may change."""

    upload_mb: float = 200  # MiB of one upload
    recording_minutes: float = 60
    keep_minutes: float = 15  # uploads and results are kept for so long after their last use

    @property
    def upload_bytes(self) -> int:
        return round(self.upload_mb * 2**20)

    @property
    def recording_seconds(self) -> float:
        return 60 * self.recording_minutes

    @property
    def keep_seconds(self) -> float:
        return 60 * self.keep_minutes
