"""Every limit that visitors of the page meet: upload size, length, number of files, queue, waiting time.

Options of `gradio_app.py` set those in `PageLimits`; the others are the same on every server. Two limits are elsewhere:
memory and time of the process that decodes uploads (audio/decoding_workers.py), and the longest recording that is drawn
with waveform and spectrogram (plots/recording.py).
"""

from dataclasses import dataclass

MAX_FILES = 500  # checked together in "Several files"
MAX_COMPARED_MODELS = 4
MAX_CHUNK_BUTTONS = 240  # more buttons are too many to use; the figure shows every chunk
MAX_JOBS = 2  # visitors served at a time: one recording is scored while the figures of another are drawn
JOB_QUEUE = {"concurrency_id": "jobs", "concurrency_limit": MAX_JOBS}  # gradio's options of every event that is a job
MAX_QUEUE = 64  # visitors who wait; the page asks any others to come back later
MAX_LOADED_MODELS = 2  # kept in memory, for all visitors: the one in use and the one it is compared with
SILENT_CLIENT_SECONDS = 10  # clients silent for this long are dropped, and their jobs with them


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
