"""An open audio file → blocks of its samples, at its own rate and with all its channels.

soundfile (libsndfile) decodes first: wav, flac, ogg, opus, mp3 and more. FFmpeg (ffmpeg.py) decodes the rest: m4a, aac,
webm, wma, amr, the sound of videos, some valid flac files that libsndfile rejects, and what follows the end that a
header announces.
"""

import re
from collections.abc import Generator
from itertools import groupby

import numpy as np

from audio.errors import AudioError
from audio.ffmpeg import EXACT_EDGE_SECONDS, Blocks, FFmpegRecording, lossy_edge, require_plausible
from audio.tails import Extent, announces_mp3_length, next_head, unheard_bytes

BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2**20  # of all channels: a header may claim 64 channels at 768 kHz
UNKNOWN_BYTES = 2**31 - 2**16  # programs that do not know a WAV's size yet write this or more,
ROUND_BYTES = 10**6  # or a multiple of this
ABSURD = 1000  # times what is there: a placeholder, not an announcement
READ_AHEAD = {"flac", "ogg", "mp3"}  # libsndfile's place in these is not exactly where the sound ends
READ_ON = {"w64", "voc"}  # libsndfile takes whatever follows the announced end for samples of these
SHORTEST_SECONDS = 0.05  # shorter differences between decoders are no sound of their own
MOST_HEADS = 100  # in one file


class AudioDecoder:
    """Decodes one open file. Iterate over `blocks` once; afterwards the attributes describe the whole file.

    All that can be heard comes, one after another: what follows the announced end, recordings joined to the first one,
    further tracks.

    path: for messages. file: opened in binary mode and unbuffered, because both libraries move its descriptor.
    """

    def __init__(self, path: str, file):
        self.path, self.file = path, file
        self.decoder = "soundfile"  # "pyav" as soon as PyAV had to take over
        self.coding = ""  # container and encoding, as the first decoder that opened the file names them: "FLAC PCM_16"
        self.rate = self.channels = 0  # of the first block
        self.tracks = 1  # of sound, in the recording that has most
        self.delivered = 0  # samples of each channel so far
        self.seconds = 0.0  # the same, each at its own rate
        self.joined_at: list[float] = []  # seconds: where sound begins that the header before it does not announce
        self.lost_seconds = 0.0  # announced by headers minus decoded; 0 if no more than is usual for the format
        self.damaged_packets = 0  # that FFmpeg could not decode
        self.gap_seconds = 0.0  # silence in their place
        self.unheard_bytes = 0  # after the end of the sound: nothing decodes them
        self._announced: float | None = None  # seconds, by the first recording's header
        self._edge = EXACT_EDGE_SECONDS
        self._container, self._end = "", 0  # of what soundfile read, and the byte at which its sound ends

    def blocks(self) -> Blocks:
        """Blocks (n, C): soundfile's, then FFmpeg's from where libsndfile fails or ends. Raises AudioError."""
        recording = FFmpegRecording(self.path, self.file)
        complete = yield from self._by_soundfile()
        announced_end = self.seconds
        if not complete or self._goes_on(recording):
            heard = yield from self._by_ffmpeg(recording, skip=self.seconds)
            if complete and heard > announced_end + SHORTEST_SECONDS:
                self.joined_at.append(announced_end)
            search, end = recording.in_first_packet, recording.end
        else:  # FFmpeg, if it was asked, found no more
            search, end = recording.last_packet, self._end
        container = self._container or recording.container
        extent = Extent(container, 0, recording.last_packet, end)
        yield from self._joined_recordings(extent, search or end, recording.end)

    def _by_soundfile(self) -> Generator[tuple[np.ndarray, int], None, bool]:
        """Yield blocks (n, C); return whether there were any, and all that the header announces."""
        import soundfile

        try:
            # By descriptor: by name, libsndfile would take a text file called a.vox for headerless sound.
            with soundfile.SoundFile(self.file.fileno(), closefd=False) as sound:
                require_plausible(self.path, sound.samplerate, sound.channels)
                self.coding, self._container = f"{sound.format} {sound.subtype}", sound.format.lower()
                if self._container in READ_ON:
                    return False
                self._announced = _announced_by_soundfile(sound)
                lossy = self._container == "ogg" or sound.subtype.startswith("MPEG")
                self._edge = lossy_edge(sound.samplerate) if lossy else EXACT_EDGE_SECONDS
                length = _block_length(sound.samplerate, sound.channels)
                while len(block := sound.read(length, dtype="float32", always_2d=True)):
                    yield self._counted(block, sound.samplerate)
                self._end = self.file.tell()
        except soundfile.SoundFileError:
            return False
        if self._container == "mp3" and not announces_mp3_length(self.file):
            self._announced = None  # libsndfile's guess
        return self.delivered > 0 and self._lost(self.seconds) == 0

    def _goes_on(self, recording: FFmpegRecording) -> bool:
        """Whether FFmpeg finds more sound in the file than soundfile delivered."""
        at_end = self._end == self.file.seek(0, 2) or (next_head(self.file, self._end) or 0) - self._end in (0, 1)
        if at_end and self._container not in READ_AHEAD:
            return False
        try:
            return recording.seconds() > self.seconds + recording.edge or recording.tracks > 1
        except AudioError:
            return False

    def _by_ffmpeg(
        self, recording: FFmpegRecording, skip: float = 0.0
    ) -> Generator[tuple[np.ndarray, int], None, float]:
        """Yield blocks (n, C) of all tracks, but for the first `skip` seconds; return the first track's seconds.

        An error after the first sample ends the recording there.
        """
        start = 0.0 if skip else self.seconds
        heard, track = self.seconds - start, 0
        while track < recording.tracks:
            for block, rate in _gathered(self._frames(recording, track, 0.0 if track else skip)):
                self.decoder, self.coding = "pyav", self.coding or recording.coding
                yield self._counted(block, rate)
                heard = heard if track else self.seconds - start
            track += 1
        if self._announced is None:
            self._announced, self._edge = recording.announced, recording.edge
        self.lost_seconds += self._lost(heard)
        self.gap_seconds += recording.gap_seconds
        self.damaged_packets += recording.damaged_packets
        self.tracks = max(self.tracks, recording.tracks)
        return heard

    def _frames(self, recording: FFmpegRecording, track: int, skip: float) -> Blocks:
        """Frames (n, C) of a track but for the first `skip` seconds, up to an error."""
        came = track > 0 or skip > 0
        try:
            for frame in _without(recording.frames(track), skip):
                came = True
                yield frame
        except AudioError:
            if not came:
                raise
            self.damaged_packets += bool(recording.coding)  # not if FFmpeg does not know the format

    def _joined_recordings(self, last: Extent, search: int, passed: int) -> Blocks:
        """Yield blocks (n, C) of the recordings that begin at byte `search` or later; count the bytes in between.

        passed: the byte that FFmpeg reached; it goes on by itself into recordings of the same kind.
        """
        for _ in range(MOST_HEADS):
            if (head := next_head(self.file, search)) is None:
                break
            recording, before, self._announced = FFmpegRecording(self.path, self.file, head), self.seconds, None
            search = head + 1
            try:
                if head < passed and recording.opened_as() == last.container:
                    continue
                yield from self._by_ffmpeg(recording)
            except AudioError:  # a tag, a picture, or chance
                continue
            if self.seconds > before:
                self.joined_at.append(before)
                self.unheard_bytes += unheard_bytes(self.file, last, head)
                search = max(search, recording.in_first_packet)
                passed = max(passed, recording.end)
                last = Extent(recording.container, head, recording.last_packet, passed)
        self.unheard_bytes += unheard_bytes(self.file, last, self.file.seek(0, 2))

    def _counted(self, block: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
        if self.rate == 0:
            self.rate, self.channels = rate, block.shape[1]
        self.delivered += len(block)
        self.seconds += len(block) / rate
        return block, rate

    def _lost(self, heard: float) -> float:
        """Seconds announced but not heard; 0 if no more than is usual for the format, or absurd."""
        announced = heard if self._announced is None or self._announced > ABSURD * heard else self._announced
        return announced - heard if announced - heard > self._edge else 0.0


def _without(frames: Blocks, seconds: float) -> Blocks:
    """Frames (n, C) but for the first `seconds`; their rate may differ from soundfile's, as Opus's does."""
    skip = None
    for samples, rate in frames:
        skip = round(seconds * rate) if skip is None else skip
        rest = samples[skip:]
        skip -= len(samples) - len(rest)
        if len(rest):
            yield rest, rate


def _gathered(frames: Blocks) -> Blocks:
    """Join short frames (n, C) to blocks; a new rate or channel count in mid-stream starts a new block."""
    for (rate, channels), alike in groupby(frames, key=lambda frame: (frame[1], frame[0].shape[1])):
        held, total = [], 0
        for samples, _ in alike:
            held.append(samples)
            total += len(samples)
            if total >= _block_length(rate, channels):
                yield np.concatenate(held), rate
                held, total = [], 0
        if held:
            yield np.concatenate(held), rate


def _block_length(rate: int, channels: int) -> int:
    return min(int(BLOCK_SECONDS * rate), BLOCK_VALUES // channels)


def _announced_by_soundfile(sound) -> float | None:
    """Seconds by the header, or None. For a cut WAV, AIFF or AU file only libsndfile's log has the header's value."""
    if sound.frames >= 2**62:  # libsndfile's "unknown" is 2**63 - 1
        return None
    cut = re.search(
        r"^ *(?:data|SSND|Data Size) *: (\d{1,10}) \(should be (\d{1,10})\)", sound.extra_info, re.MULTILINE
    )
    claimed, there = map(int, cut.groups()) if cut else (1, 1)
    if claimed >= UNKNOWN_BYTES or (cut and claimed % ROUND_BYTES == 0) or there == 0:
        return None
    return round(sound.frames * claimed / there) / sound.samplerate
