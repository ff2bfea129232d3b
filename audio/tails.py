"""What follows the end of a file's sound: another recording, chunks without sound, or bytes that nothing decodes.

`cat a.wav b.wav` makes a file whose header knows only the first recording. Decoders stop there, listeners may not.
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

# How files begin that may hold sound. "ftyp" is the second word of MP4's; Xing or Info lies in an mp3's first frame.
HEADS = re.compile(
    rb"RIFF.{4}(?:WAVE|AVI )|RF64.{4}WAVE|FORM.{4}AIF[CF]|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02|caff\x00\x01"
    rb"|\.snd\x00\x00"
    rb"|#!AMR|ID3[\x02-\x04]\x00|\x1aE\xdf\xa3|0&\xb2u\x8ef\xcf\x11|riff\x2e\x91\xcf\x11|ftyp"
    rb"|\xff[\xe2-\xff].{11,34}(?:Xing|Info)",
    re.DOTALL,
)
LONGEST_HEAD = 64  # bytes, at least
BLOCK = 2**20  # bytes read at once
# The header of a chunk: its name and the number of bytes that follow.
CHUNK_HEADERS = {name: struct.Struct("<4sI") for name in ("wav", "wavex", "rf64")}
CHUNK_HEADERS |= {"aiff": struct.Struct(">4sI"), "caf": struct.Struct(">4sq")}
SOUND_CHUNKS = {b"data", b"SSND"}
# In other containers (ASF, MPEG) tables without sound follow the last packet.
ENDS_WITH_SOUND = CHUNK_HEADERS.keys() | {"w64", "au", "flac", "mp3", "aac", "amr", "ac3"}
FEW_BYTES = 1024  # a tag, or too short to be speech


class Extent(NamedTuple):
    """Where a recording lies in its file: its first byte, its last packet's first byte, the end of its sound."""

    container: str
    start: int
    last_packet: int
    end: int


class FileTail:
    """The bytes of an open file from `start`, as if they were a file: for PyAV.

    `seek` returns -1 on an error: PyAV would print a traceback of an exception. There is no name: by name, FFmpeg would
    take a text file called a.gsm for headerless sound.
    """

    def __init__(self, file, start: int = 0):
        self.read, self._file, self._start = file.read, file, start
        file.seek(start)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._file.seek(offset + (self._start if whence == 0 else 0), whence) - self._start
        except OSError:
            return -1


def next_head(file, start: int) -> int | None:
    """Where the next file may begin, at `start` or later."""
    for place, block in _overlapping_blocks(file, start):
        if match := HEADS.search(block):
            return max(start, place + match.start() - 4 * (match.group() == b"ftyp"))
    return None


def unheard_bytes(file, recording: Extent, stop: int) -> int:
    """How many bytes lie between a recording and byte `stop`, without trailing zeros and parts of its container."""
    start = recording.end
    if recording.container in CHUNK_HEADERS:
        start = _after_chunks(file, start, CHUNK_HEADERS[recording.container])
    elif recording.container == "ogg":
        start = max(start, _after_pages(file, recording.last_packet))
    elif recording.container in WALKS:
        start = max(start, WALKS[recording.container](file, recording.start))
    elif recording.container not in ENDS_WITH_SOUND:
        return 0
    file.seek(start)
    last = place = start
    while block := file.read(max(0, min(BLOCK, stop - place))):
        filled = len(block.rstrip(b"\0"))
        last = place + filled if filled else last
        place += len(block)
    return last - start if last - start > FEW_BYTES else 0


def _overlapping_blocks(file, start: int) -> Iterator[tuple[int, bytes]]:
    """Places and blocks; a block begins with the last bytes of the one before, where a head may have begun."""
    file.seek(start)
    held, place = b"", start
    while block := file.read(BLOCK):
        yield place - len(held), held + block
        place += len(block)
        held = (held + block)[-LONGEST_HEAD:]


def _after_chunks(file, place: int, header: struct.Struct) -> int:
    """The end of the whole chunks without sound that follow `place`."""
    size = file.seek(0, 2)
    while True:
        for start in (place, place + 1):  # a chunk of odd length is padded
            file.seek(start)
            head = file.read(header.size)
            name, length = header.unpack(head) if len(head) == header.size else (b"", 0)
            end = start + header.size + length
            if name.isascii() and name.decode("ascii", "replace").isprintable() and name and start < end <= size:
                break
        else:
            return place
        if name in SOUND_CHUNKS:
            return place
        place = end


def _after_pages(file, place: int) -> int:
    """The end of the Ogg pages that begin at `place`."""
    while True:
        file.seek(place)
        head = file.read(27)
        if len(head) < 27 or head[:4] != b"OggS":
            return place
        place += 27 + head[26] + sum(file.read(head[26]))


def _after_boxes(file, start: int) -> int:
    """The end of the MP4 boxes that begin at `start`."""
    size, place = file.seek(0, 2), start
    while True:
        file.seek(place)
        length, name, long = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        length = long if length == 1 else size - place if length == 0 and name == b"mdat" else length
        if length < 8 or place + length > size or not name.isalnum() or (name == b"ftyp" and place > start):
            return place
        place += length


def _after_elements(file, start: int) -> int:
    """The end of the Matroska files (EBML header, segment) that begin at `start`."""
    size, place = file.seek(0, 2), start
    while True:
        file.seek(place)
        head = file.read(12)
        if len(head) < 5 or head[:4] not in (b"\x1aE\xdf\xa3", b"\x18S\x80g") or head[4] == 0:
            return place
        width = 9 - head[4].bit_length()  # of the number that follows, in which a first bit marks the width
        length = int.from_bytes(head[4 : 4 + width]) & (1 << 7 * width) - 1
        if length == (1 << 7 * width) - 1 or place + 4 + width + length > size:  # unknown, as in a live recording
            return size
        place += 4 + width + length


WALKS = {  # from a recording's first byte to the end of its container
    "mov,mp4,m4a,3gp,3g2,mj2": _after_boxes,
    "matroska,webm": _after_elements,
    "avi": lambda file, start: _after_chunks(file, start, CHUNK_HEADERS["wav"]),
}


def announces_mp3_length(file) -> bool:
    """Whether an mp3 begins with a frame that announces its length; otherwise decoders guess it from the size."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(4096)
        if head[:3] != b"ID3" or len(head) < 10:
            return any(mark in head for mark in (b"Xing", b"Info", b"VBRI"))
        start += 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10])))
