"""Sound beyond what a header announces: joined files, shortened lengths, tracks; and what is no announcement."""

import struct

import av
import numpy as np
import pytest
import soundfile
from test_audio import RATE, decode, encode, tone

from audio import reading
from audio.errors import AudioError
from common.errors import UserError
from corpora.check import file_faults
from corpora.cues import measure_file

SOUNDFILE_FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
}
FFMPEG_FORMATS = {"m4a": "aac", "aac": "aac", "webm": "libopus", "mka": "pcm_s16le", "wma": "wmav2", "ac3": "ac3"}
FORMATS = [*SOUNDFILE_FORMATS, *FFMPEG_FORMATS]


def written(path, samples: np.ndarray, ending: str) -> bytes:
    """The bytes of a file of `samples` (n,) at 16 kHz in the format that `ending` stands for."""
    path = path.with_suffix(f".{ending}")
    if ending in SOUNDFILE_FORMATS:
        container, coding = SOUNDFILE_FORMATS[ending]
        soundfile.write(path, samples, RATE, coding, format=container)
    else:
        encode(path, np.repeat(samples, 3), FFMPEG_FORMATS[ending], 48_000)
    return path.read_bytes()


def names(path) -> list[str]:
    """What `python data_utils.py check` finds in a file."""
    return [name for name, _ in file_faults(measure_file(path))]


def loudest_hertz(samples: np.ndarray, second: float) -> int:
    """The strongest frequency in the second that begins at `second`."""
    first = round(second * RATE)
    return int(np.argmax(np.abs(np.fft.rfft(samples[first : first + RATE]))))


@pytest.mark.parametrize("second", ["the same", "flac", "mp3"])
@pytest.mark.parametrize("first", FORMATS)
def test_joined_files_are_heard_to_the_end(tmp_path, first, second):
    """`cat a b`: each decoder alone stops after a, or takes b for damage."""
    second = first if second == "the same" else second
    if first == "aac" != second:
        pytest.skip("FFmpeg does not recognise aac that something else follows: unreadable")
    data = written(tmp_path / "a", tone(2.0, hertz=300), first) + written(tmp_path / "b", tone(3.0, hertz=700), second)
    (tmp_path / "c").write_bytes(data)
    samples, facts = decode(tmp_path / "c")
    mistaken = 1.0 if first in ("mp3", "ac3") and second not in first else 0.3  # frames found by chance in the second
    assert facts.seconds == pytest.approx(5, abs=mistaken)
    assert facts.unheard_bytes == 0
    assert loudest_hertz(samples, 0.5) == 300
    assert loudest_hertz(samples, facts.seconds - 1.7) == 700
    assert (len(facts.joined_at) > 0) == ("joined" in names(tmp_path / "c"))
    assert abs(len(reading.read(tmp_path / "c")) - len(samples)) == 0 or facts.damaged_packets


def test_three_joined_files(tmp_path):
    """FFmpeg goes on from one flac to the next by itself, and takes the WAV for the end of the last flac frame."""
    soundfile.write(tmp_path / "a.flac", tone(2.0, hertz=300), RATE)
    soundfile.write(tmp_path / "b.flac", tone(3.0, hertz=700), RATE)
    soundfile.write(tmp_path / "c.wav", tone(1.5, 8_000, 500), 8_000)
    parts = [(tmp_path / name).read_bytes() for name in ("a.flac", "b.flac", "c.wav")]
    (tmp_path / "d.flac").write_bytes(b"".join(parts))
    samples, facts = decode(tmp_path / "d.flac")
    assert facts.seconds == pytest.approx(6.5, abs=0.3)
    assert [loudest_hertz(samples, second) for second in (0.5, 3.5, facts.seconds - 1.2)] == [300, 700, 500]
    assert facts.joined_at[0] == 2.0 and len(facts.joined_at) == 2


def shortened(data: bytes, ending: str) -> bytes:
    """The file with a length field of 2 s."""
    data, two = bytearray(data), 2 * RATE
    if ending == "flac":
        info = int.from_bytes(data[18:26], "big")
        data[18:26] = (info >> 36 << 36 | two).to_bytes(8, "big")
    elif ending == "mp3":
        place = max(data.find(b"Xing"), data.find(b"Info")) + 8
        data[place : place + 4] = struct.pack(">I", two // 576)
    elif ending == "au":
        data[8:12] = struct.pack(">I" if data[:4] == b".snd" else "<I", 2 * two)
    else:
        place = data.index({"wav": b"data", "aiff": b"SSND", "caf": b"data"}[ending]) + 4
        width = struct.Struct({"wav": "<I", "aiff": ">I", "caf": ">q"}[ending])
        extra = {"wav": 0, "aiff": 8, "caf": 4}[ending]
        data[place : place + width.size] = width.pack(2 * two + extra)
    return bytes(data)


@pytest.mark.parametrize("ending", ["flac", "mp3", "au", "wav", "aiff", "caf"])
def test_a_length_field_that_is_too_small(tmp_path, ending):
    """What follows is heard, or named and refused in training where it cannot be told from other bytes."""
    signal = np.concatenate([tone(2.0, hertz=300), tone(3.0, hertz=700)])
    (path := tmp_path / f"b.{ending}").write_bytes(shortened(written(tmp_path / "a", signal, ending), ending))
    samples, facts = decode(path)
    if ending in ("flac", "mp3", "au"):
        assert facts.seconds == pytest.approx(5, abs=0.2) and facts.unheard_bytes == 0
        assert facts.joined_at == (pytest.approx(2, abs=0.2),)
        assert loudest_hertz(samples, 3.5) == 700
        assert "joined" in names(path) and len(reading.read(path)) == len(samples)
    else:
        assert facts.seconds == 2 and facts.unheard_bytes == pytest.approx(2 * 3 * RATE, abs=16)
        assert "unheard" in names(path)
        with pytest.raises(UserError, match="nothing decodes"):
            reading.read(path)


def test_what_may_follow_the_sound(tmp_path):
    """Chunks, tags and padding are no sound."""
    wav = written(tmp_path / "a", tone(2.0), "wav")
    (path := tmp_path / "b").write_bytes(wav + b"LIST" + struct.pack("<I", 5001) + b"x" * 5002 + b"id3 " + bytes(4))
    assert decode(path)[1].unheard_bytes == 0
    path.write_bytes(wav + bytes(100_000))
    assert decode(path)[1].unheard_bytes == 0
    for ending in ("mp3", "flac"):
        path.write_bytes(written(tmp_path / "a", tone(2.0), ending) + b"TAG" + b"x" * 125)
        facts = decode(path)[1]
        assert (facts.unheard_bytes, facts.joined_at, facts.seconds) == (0, (), pytest.approx(2, abs=0.05))
    path.write_bytes(wav + b"LIST" + struct.pack("<I", 16) + b"x" * 16 + b"y" * 50_000)
    assert decode(path)[1].unheard_bytes == 50_000


@pytest.mark.parametrize("ending", ["m4a", "webm", "ogg", "flac", "aiff", "wav"])
def test_bytes_between_two_recordings_are_named(tmp_path, ending):
    """Such as frames of aac or mp3 without any head."""
    foreign = np.random.default_rng(0).integers(1, 255, 100_000, dtype=np.uint8).tobytes()
    parts = [written(tmp_path / "a", tone(2.0), ending), foreign, written(tmp_path / "b", tone(3.0), "wav")]
    (path := tmp_path / "c").write_bytes(b"".join(parts))
    facts = decode(path)[1]
    assert facts.unheard_bytes == pytest.approx(100_000, abs=70_000 if ending == "flac" else 1000)
    assert facts.seconds == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("ending", ["mka", "m4a"])
def test_every_track_is_heard(tmp_path, ending):
    """The first is silent; a file is not silent while another track speaks."""
    path, codec = tmp_path / f"a.{ending}", {"mka": "pcm_s16le", "m4a": "aac"}[ending]
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(codec, rate=48_000, layout="mono") for _ in range(2)]
        container.start_encoding()
        for stream, hertz in zip(streams, (0, 700), strict=True):
            frame = av.AudioFrame.from_ndarray(tone(2.0, 48_000, hertz)[None], format="fltp", layout="mono")
            frame.rate = 48_000
            resampler = av.AudioResampler(stream.format, "mono", 48_000, stream.frame_size or 0)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    samples, facts = decode(path)
    assert (facts.tracks, facts.seconds) == (2, pytest.approx(4, abs=0.15))
    assert facts.active_seconds == pytest.approx(2, abs=0.15)
    assert loudest_hertz(samples, 2.5) == 700
    assert "tracks" in names(path)


# ------------------------------------------------------------------------------- what is no announcement, or no loss


@pytest.mark.parametrize("kind", ["constant", "variable", "cover"])
def test_an_mp3_without_a_length_frame_announces_none(tmp_path, kind):
    """Pauses and a picture make libsndfile's guess from the bit rate far too long."""
    signal = np.concatenate([np.zeros(3 * 44_100, np.float32), tone(2.0, 44_100), np.zeros(3 * 44_100, np.float32)])
    options = {"global_quality": "472", "flags": "+qscale"} if kind == "variable" else {"b": "64000"}
    with av.open(str(path := tmp_path / "a.mp3"), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono", options=options)
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(signal[None], format="fltp", layout="mono")
        frame.rate = 44_100
        for piece in av.AudioResampler(stream.format, "mono", 44_100, stream.frame_size).resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    if kind == "cover":
        picture = b"APIC" + struct.pack(">I", 300_000) + bytes(2) + b"\0image/jpeg\0\3\0".ljust(300_000, b"x")
        size = len(picture)
        digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
        path.write_bytes(b"ID3\3\0\0" + digits + picture + path.read_bytes())
    facts = decode(path)[1]
    assert (facts.lost_seconds, facts.joined_at, facts.unheard_bytes) == (0, (), 0)
    assert facts.seconds == pytest.approx(8, abs=0.15)
    assert "truncated" not in names(path)
    reading.read(path)


def test_compressed_sound_in_a_wav_has_an_inexact_length(tmp_path):
    encode(path := tmp_path / "a.wav", np.repeat(tone(2.0), 3), "libmp3lame", 48_000)
    assert decode(path)[1].coding == "WAV MPEG_LAYER_III"
    assert decode(path)[1].lost_seconds == 0


def test_a_cut_mp3_with_a_length_frame_is_truncated(tmp_path):
    data = written(tmp_path / "a", tone(6.0), "mp3")
    (path := tmp_path / "b.mp3").write_bytes(data[: len(data) // 2])
    assert decode(path)[1].lost_seconds == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("size", [2_000_000_000, 1_000_000_000, 0x7FFF0000, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_placeholder_is_no_announcement(tmp_path, size):
    data = bytearray(written(tmp_path / "a", tone(5.5), "wav"))
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", min(size + 36, 0xFFFFFFFF))
    (path := tmp_path / "b.wav").write_bytes(data)
    facts = decode(path)[1]
    assert (facts.seconds, facts.lost_seconds) == (5.5, 0)
    assert len(reading.read(path)) == 5.5 * RATE


# ------------------------------------------------------------------------------------- scale, polarity, the time axis


@pytest.mark.parametrize("scale", [32_767, 2**31 - 1, 100])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_integers_stored_as_floats_are_refused(tmp_path, scale, subtype):
    soundfile.write(path := tmp_path / "a.wav", tone(2.0) * scale, RATE, subtype=subtype)
    with pytest.raises(AudioError, match="beyond full scale") as error:
        decode(path)
    assert error.value.condition == "wrong_scale"
    assert names(path) == ["wrong_scale"]
    soundfile.write(path, tone(2.0) * 10, RATE, subtype=subtype)  # a hot float mix
    assert decode(path)[1].clipped > 0.5


@pytest.mark.parametrize("residue", [0.0, 0.1])
def test_opposite_polarity_does_not_cancel(tmp_path, residue):
    signal, other = tone(3.0, hertz=300), tone(3.0, hertz=700) * residue
    cancelling, same = np.stack([signal, other - 0.9 * signal], 1), np.stack([signal, signal], 1)
    soundfile.write(path := tmp_path / "a.wav", np.concatenate([same, cancelling, same]), RATE, subtype="FLOAT")
    samples, facts = decode(path)
    assert facts.cancelled_seconds == 3.0
    np.testing.assert_allclose(samples, np.tile(signal, 3), atol=1e-6)
    assert "cancelling" in names(path)


def test_ordinary_stereo_is_averaged(tmp_path):
    rng = np.random.default_rng(0)
    one_sided = np.stack([tone(2.0)] + [np.zeros(2 * RATE, np.float32)] * 7, 1)
    for signal in (rng.normal(0, 0.1, (2 * RATE, 2)), one_sided, np.zeros((RATE, 2))):
        soundfile.write(path := tmp_path / "a.wav", signal, RATE, subtype="FLOAT")
        samples, facts = decode(path)
        assert facts.cancelled_seconds == 0
        np.testing.assert_allclose(samples, signal.mean(axis=1), atol=1e-6)


def test_amr_with_comfort_noise_keeps_its_pauses(tmp_path):
    """FFmpeg's own decoder skips such packets, and with them half of the time."""
    if "libopencore_amrnb" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libopencore_amrnb")
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 16_000).astype(np.float32)
    signal = np.concatenate([speech, np.zeros(48_000, np.float32), speech])
    with av.open(str(path := tmp_path / "a.amr"), "w") as container:
        stream = container.add_stream("libopencore_amrnb", rate=8_000, layout="mono", options={"dtx": "1"})
        stream.bit_rate = 12_200
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(signal[None], format="fltp", layout="mono")
        frame.rate = 8_000
        for piece in av.AudioResampler(stream.format, "mono", 8_000, stream.frame_size).resample(frame):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    samples, facts = decode(path)
    assert (facts.damaged_packets, facts.seconds) == (0, pytest.approx(10, abs=0.1))
    loud = np.abs(samples.reshape(-1, 320)).max(axis=1) > 0.05
    assert loud[:90].all() and loud[-90:].all() and not loud[150:350].any()


def test_a_packet_that_cannot_be_decoded_leaves_a_gap(tmp_path):
    """What follows keeps its time."""
    signal = np.random.default_rng(0).normal(0, 0.1, 4 * 48_000).astype(np.float32)
    encode(path := tmp_path / "a.mka", signal, "ac3", 48_000)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = path.read_bytes()
    whole = decode(path)[0]
    for packet in packets[20:50]:
        place = data.index(packet)
        data = data[:place] + bytes(len(packet)) + data[place + len(packet) :]
    path.write_bytes(data)
    samples, facts = decode(path)
    assert facts.damaged_packets == 30
    assert len(samples) == pytest.approx(len(whole), abs=160)
    assert (facts.gap_seconds, facts.lost_seconds) == (pytest.approx(30 * 1536 / 48_000, abs=0.01), 0)
    with pytest.raises(UserError, match="damaged"):
        reading.read(path)
    assert np.abs(samples[round(0.8 * RATE) : round(1.4 * RATE)]).max() < 1e-3
    assert np.corrcoef(samples[2 * RATE : 3 * RATE], whole[2 * RATE : 3 * RATE])[0, 1] > 0.98  # ac3 dithers
