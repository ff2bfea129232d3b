"""Reading audio: formats, decoders, damaged and hostile files, levels; chunks."""

import os
import pickle
import struct
import subprocess
import sys
import warnings

import av
import numpy as np
import pytest
import soundfile
from conftest import ROOT

from audio import SAMPLE_RATE, reading
from audio.chunks import CHUNK_SAMPLES, Chunker, chunks, fit
from audio.errors import AudioError
from common.errors import UserError

RATE = SAMPLE_RATE


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encode(path, samples: np.ndarray, codec: str, rate: int = RATE) -> None:
    """Write mono samples through FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        stream.codec_context.open()  # which sets the frame size
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def decode(path, **options) -> tuple[np.ndarray, reading.RecordingFacts]:
    recording = reading.Recording(path, **options)
    samples = np.concatenate(list(recording))
    assert samples.dtype == np.float32
    assert recording.facts.seconds == len(samples) / RATE
    return samples, recording.facts


def condition_of(path, **options) -> str:
    """The condition of the AudioError that decoding `path` raises; its message is one line that names the path."""
    with pytest.raises(AudioError) as error:
        decode(path, **options)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return error.value.condition


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).integers(-(2**13), 2**13, int(seconds * RATE), dtype=np.int16)


def test_flac_is_exact(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 20_000, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    read = reading.read(tmp_path / "a.flac")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, samples / np.float32(32768))


def test_genuine_files_that_libsndfile_rejects(shared):
    """13 of ASVspoof2021's 30 files: the samples must be FFmpeg's."""
    rejected = 0
    for path in sorted((shared / "data" / "LA21_mini" / "flac").glob("*.flac")):
        with av.open(str(path)) as container:
            to_int = av.AudioResampler(format="s16", layout="mono")
            frames = [f.to_ndarray()[0] for frame in container.decode(audio=0) for f in to_int.resample(frame)]
        np.testing.assert_array_equal(reading.read(path), np.concatenate(frames) / np.float32(32768))
        try:
            soundfile.read(path)
        except soundfile.LibsndfileError:
            rejected += 1
    assert rejected == 13


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.m4a", "aac", 48_000),
        ("a.m4a", "alac", 48_000),
        ("a.aac", "aac", 48_000),
        ("a.mp3", "libmp3lame", 48_000),
        ("a.webm", "libopus", 48_000),
        ("a.mp4", "libopus", 48_000),
        ("a.ogg", "libopus", 48_000),
        ("a.mka", "pcm_s16le", 48_000),
        ("a.wma", "wmav2", 48_000),
        ("a.amr", "libopencore_amrnb", 8_000),
        ("a.ac3", "ac3", 48_000),
    ],
)
def test_formats(tmp_path, name, codec, rate):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    encode(tmp_path / name, tone(2.0, rate), codec, rate)
    read = reading.read(tmp_path / name)
    assert abs(len(read) / RATE - 2.0) < 0.1
    spectrum = np.abs(np.fft.rfft(read[8000:24_000]))
    assert np.argmax(spectrum) == 440  # 1 Hz bins


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_sound_beside_pictures(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=25), container.add_stream("aac", rate=RATE, layout="mono")
        pictures.width = pictures.height = 64
        for _ in range(100):  # 4 s: the container is longer than its sound
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        for first in range(0, 2 * RATE - 1024, 1024):
            piece = tone(2.0)[None, first : first + 1024]
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.rate, frame.pts = RATE, first
            container.mux(sound.encode(frame))
        container.mux([*pictures.encode(None), *sound.encode(None)])
    samples, facts = decode(tmp_path / name)
    assert abs(facts.seconds - 2) < 0.1
    assert facts.lost_seconds == 0
    assert abs(np.std(samples[RATE // 2 : RATE]) - 0.3 / 2**0.5) < 0.02


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 2), (192_000, 7)])
def test_sample_types_rates_and_channels(tmp_path, subtype, rate, channels):
    """Both decoders: FFmpeg takes over when the header does not give the length."""
    soundfile.write(path := tmp_path / "a.wav", np.stack([tone(1.0, rate)] * channels, 1), rate, subtype=subtype)
    samples, facts = decode(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = bytes(4)
    (tmp_path / "b.wav").write_bytes(data)
    by_ffmpeg, other_facts = decode(tmp_path / "b.wav")
    assert (facts.decoder, other_facts.decoder) == ("soundfile", "pyav")
    assert (facts.rate, facts.channels, facts.seconds) == (rate, channels, 1.0)
    assert (other_facts.rate, other_facts.channels, other_facts.seconds) == (rate, channels, 1.0)
    np.testing.assert_allclose(samples[500:-500], tone(1.0)[500:-500], atol=0.01 if subtype == "PCM_U8" else 1e-3)
    np.testing.assert_allclose(samples, by_ffmpeg, atol=1e-6)


def test_eight_channels_through_ffmpeg(tmp_path):
    """In another process, because PyAV's own conversion to an array reads beyond the memory of such a frame."""
    channels = np.stack([tone(2.0, 48_000, 200.0 * number) for number in range(1, 9)], 1)
    frame = av.AudioFrame.from_ndarray(channels.reshape(1, -1), format="flt", layout="7.1")
    frame.rate = 48_000
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="7.1")
        stream.codec_context.open()
        resampler = av.AudioResampler(format=stream.format, frame_size=stream.frame_size)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    command = """
import sys, numpy
from audio import reading
for channel in (1, 2, 8):
    samples = numpy.concatenate(list(reading.Recording(sys.argv[1], channel)))
    print(numpy.argmax(numpy.abs(numpy.fft.rfft(samples[8000:24000]))))
"""
    assert run_python(command, tmp_path / "a.mkv").split() == ["200", "400", "1600"]


def test_blocks_join_to_the_whole_at_any_rate(tmp_path):
    soxr = pytest.importorskip("soxr")
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, 25 * 44_100).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    blocks = list(reading.Recording(tmp_path / "a.wav"))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), soxr.resample(samples, 44_100, RATE, quality="HQ"))


def test_channel(tmp_path):
    left, right = tone(1.0, hertz=300), tone(1.0, hertz=700)
    soundfile.write(path := tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode(path, channel=1)[0], left)
    np.testing.assert_array_equal(decode(path, channel=2)[0], right)
    np.testing.assert_array_equal(decode(path)[0], (left + right) / 2)
    for channel in (0, 3, -1):
        with pytest.raises(AudioError, match=f"no channel {channel} .*1 to 2") as error:
            decode(path, channel=channel)
        assert error.value.condition == "no_such_channel"


def test_the_clipped_fraction_is_of_the_source(tmp_path):
    loud = np.zeros((44_100, 2))
    loud[:441, 0] = 1.0
    loud[441:882, 1] = -1.0
    soundfile.write(tmp_path / "a.wav", loud, 44_100)
    assert decode(tmp_path / "a.wav")[1].clipped == 882 / 44_100
    assert decode(tmp_path / "a.wav", channel=1)[1].clipped == 882 / 44_100
    soundfile.write(tmp_path / "a.wav", loud * 0.99, 44_100)
    assert decode(tmp_path / "a.wav")[1].clipped == 0


def click(samples: np.ndarray) -> np.ndarray:
    samples = samples.copy()
    samples[3200:3360] = 0.9  # 10 ms
    return samples


@pytest.mark.parametrize(
    ("samples", "active"),
    [
        (np.zeros(RATE), 0.0),
        (tone(2.0) * 10 ** (-55 / 20), 0.0),  # 0.3 * sqrt(1/2) is -13.5 dBFS: in all -68.5
        (click(np.zeros(RATE)), 0.02),
        (click(tone(1.0) * 10 ** (-45 / 20)), 1.0),  # the click does not set what counts as loud
        (np.concatenate([tone(1.0), np.zeros(RATE)]), 1.0),
        (np.concatenate([tone(1.0), tone(1.0) * 10 ** (-45 / 20)]), 1.0),
        (np.concatenate([tone(1.0), tone(1.0) * 10 ** (-35 / 20)]), 2.0),
        (tone(30.0), 30.0),
    ],
)
def test_active_seconds(tmp_path, samples, active):
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert decode(tmp_path / "a.wav")[1].active_seconds == pytest.approx(active)


def test_stereo_44_1_khz_becomes_mono_16_khz(tmp_path):
    left, right = tone(2.0, 44_100), np.zeros(88_200, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    read = reading.read(tmp_path / "a.wav")
    assert len(read) == 2 * RATE
    np.testing.assert_allclose(read[2000:-2000], tone(2.0)[2000:-2000] / 2, atol=1e-3)


def damaged(tmp_path, kind: str):
    path = tmp_path / "a.flac"
    if kind == "missing":
        return path
    if kind == "folder":
        return tmp_path
    soundfile.write(path, tone(3.0) + 0.01 * np.random.default_rng(0).standard_normal(3 * RATE), RATE)
    data = path.read_bytes()
    if kind == "no bytes":
        data = b""
    if kind == "truncated":
        data = data[: len(data) // 2]
    if kind == "text":
        data = b"this is no audio\n" * 100
    path.write_bytes(data)
    if kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)
    if kind == "nan":
        path = path.with_suffix(".wav")
        soundfile.write(path, np.full(RATE, np.nan), RATE, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "nothing there"),
        ("folder", "a folder"),
        ("no bytes", "empty"),
        ("no samples", "empty"),
        ("truncated", "truncated.*48000 samples.*found"),
        ("text", "without sound"),
        ("nan", "finite samples"),
    ],
)
def test_damaged_files_are_named(tmp_path, kind, words):
    path = damaged(tmp_path, kind)
    with pytest.raises(UserError, match=words) as error:
        reading.read(path)
    assert str(path) in str(error.value)


def test_conditions(tmp_path):
    assert condition_of(tmp_path / "none.wav") == "missing"
    assert condition_of(tmp_path) == "unreadable"
    os.mkfifo(tmp_path / "pipe.wav")
    assert condition_of(tmp_path / "pipe.wav") == "unreadable"
    for name in ("a.wav", "a.m4a", "a"):
        (tmp_path / name).write_bytes(b"")
        assert condition_of(tmp_path / name) == "empty"
        (tmp_path / name).write_bytes(b"this is no audio" * 1000)
        assert condition_of(tmp_path / name) in ("unreadable", "no_audio_stream")
    with soundfile.SoundFile(tmp_path / "none.wav", "w", RATE, 1):
        pass
    assert condition_of(tmp_path / "none.wav") == "empty"
    for value in (np.nan, np.inf, 1e300):
        values = np.zeros((RATE, 2))
        values[-1, 1] = value
        soundfile.write(tmp_path / "a.wav", values, RATE, subtype="DOUBLE")
        assert condition_of(tmp_path / "a.wav", channel=1) == "not_finite"
    soundfile.write(tmp_path / "a.wav", np.full((44_100, 2), 3e38), 44_100, subtype="FLOAT")
    with warnings.catch_warnings(action="error"):
        assert condition_of(tmp_path / "a.wav") == "wrong_scale"
    soundfile.write(tmp_path / "a.wav", tone(3.0), RATE)
    assert condition_of(tmp_path / "a.wav", max_seconds=2.9) == "too_long"
    assert len(decode(tmp_path / "a.wav", max_seconds=3)[0]) == 3 * RATE
    for rate, channels in ((900, 1), (2_000_000, 1), (RATE, 65)):
        soundfile.write(tmp_path / "a.wav", np.zeros((100, channels)), rate)
        assert condition_of(tmp_path / "a.wav") == "unreadable"


@pytest.mark.parametrize("name", ["a.raw", "a.vox", "a.gsm", "a.mp3", "a.flac", "a.txt", "a"])
def test_the_extension_means_nothing(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is no audio" * 1000)
    assert condition_of(path) in ("unreadable", "no_audio_stream", "empty")
    soundfile.write(path, noise(0.5), RATE, format="WAV")
    np.testing.assert_array_equal(decode(path)[0], noise(0.5) / np.float32(32768))


def test_a_playlist_opens_no_other_file(tmp_path):
    encode(tmp_path / "secret.mp3", tone(), "libmp3lame")
    playlists = [
        "ffconcat version 1.0\nfile secret.mp3\n",
        f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.mp3\n#EXT-X-ENDLIST\n",
    ]
    for name in ("a.m4a", "a.m3u8"):
        for playlist in playlists:
            (tmp_path / name).write_text(playlist)
            assert condition_of(tmp_path / name) == "unreadable"


def test_truncated_files_give_what_is_there(tmp_path):
    samples = noise(30)
    for name in ("a.flac", "a.wav", "a.aiff", "a.au"):
        path = tmp_path / name
        soundfile.write(path, samples, RATE)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        decoded, facts = decode(path)
        assert 14.5 < facts.seconds < 15.1
        np.testing.assert_array_equal(decoded, samples[: len(decoded)] / np.float32(32768))
        assert facts.seconds + facts.lost_seconds == pytest.approx(30, abs=1e-3)
        with pytest.raises(UserError, match=r"is truncated — expected \d+ samples by its header, found \d+"):
            reading.read(path)


def test_a_header_of_ten_hours_costs_nothing(tmp_path):
    soundfile.write(path := tmp_path / "a.wav", noise(0.03), RATE)
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 36_000 * 2 * RATE)
    path.write_bytes(data)
    facts = decode(path)[1]
    assert facts.seconds == 0.03
    assert facts.lost_seconds == 0  # a placeholder
    data[40:44] = b"\xff" * 4  # what FFmpeg writes to a pipe, where it cannot know
    path.write_bytes(data)
    assert decode(path)[1].lost_seconds == 0


@pytest.mark.parametrize(
    ("name", "codec", "least_seconds"), [("a.mp3", "libmp3lame", 19), ("a.m4a", "aac", 19), ("a.webm", "libopus", 15)]
)  # WebM goes on at the next cluster, 5 s long
def test_damaged_packets_lose_only_themselves(tmp_path, name, codec, least_seconds):
    encode(path := tmp_path / name, tone(20.0, 48_000), codec, 48_000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = np.random.default_rng(0).bytes(600)
    path.write_bytes(data)
    samples, facts = decode(path)
    assert facts.seconds > least_seconds
    assert np.argmax(np.abs(np.fft.rfft(samples[RATE : 2 * RATE]))) == 440
    assert np.argmax(np.abs(np.fft.rfft(samples[-2 * RATE : -RATE]))) == 440
    if name == "a.m4a":  # others find the next packet by themselves
        assert facts.damaged_packets > 0


def test_ffmpeg_goes_on_where_libsndfile_stops(tmp_path):
    """In the middle of a file: no sample is delivered twice, and all samples equal FFmpeg's."""
    soundfile.write(path := tmp_path / "a.flac", noise(30), RATE)
    data = bytearray(path.read_bytes())
    place = int(len(data) * 0.6)
    data[place : place + 5000] = bytes(5000)
    path.write_bytes(data)
    recording = reading.Recording(path)
    blocks = list(recording)
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            try:
                frames += [frame.to_ndarray()[0] for frame in packet.decode()]
            except av.FFmpegError:
                continue
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(frames) / np.float32(32768))
    assert len(blocks[0]) == 10 * RATE  # soundfile's
    facts = recording.facts
    assert facts.decoder == "pyav"
    assert 0 < facts.lost_seconds < 1
    assert facts.seconds + facts.lost_seconds == pytest.approx(30)


def test_a_new_rate_in_mid_stream_keeps_the_pitch(tmp_path):
    for name, rate in (("a.aac", 16_000), ("b.aac", 48_000)):
        encode(tmp_path / name, tone(3.0, rate), "aac", rate)
    (tmp_path / "c.aac").write_bytes((tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes())
    samples, facts = decode(tmp_path / "c.aac")
    assert (facts.rate, facts.lost_seconds) == (16_000, 0)
    assert facts.seconds == pytest.approx(6, abs=0.3)
    for first in (1, 4):
        assert np.argmax(np.abs(np.fft.rfft(samples[first * RATE : (first + 1) * RATE]))) == 440


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(AudioError("empty", "audio a.wav is empty", "sound", ValueError("x"))))
    assert (type(error), error.condition) == (AudioError, "empty")
    assert str(error) == "audio a.wav is empty — expected sound, found x"


def test_importing_stays_light():
    command = "import sys, audio.reading; sys.exit(bool({'av', 'soxr', 'soundfile'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode == 0


def mutants(folder, count: int) -> list:
    """Small files of many formats, truncated, with flipped bits or changed header bytes, and renamed."""
    rng = np.random.default_rng(0)
    originals = []
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mp3", "libmp3lame"), ("a.wma", "wmav2")):
        encode(folder / name, tone(0.5, 48_000), codec, 48_000)
        originals.append((folder / name).read_bytes())
    for form in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF", "W64", "RF64", "VOC"):
        soundfile.write(folder / "b", tone(0.5), RATE, format=form)
        originals.append((folder / "b").read_bytes())
    extensions = ["wav", "flac", "mp3", "m4a", "ogg", "raw", "vox", "gsm", "aac", "webm", "wma", "txt", "m3u8", "jpg"]
    paths = []
    for number in range(count):
        data = bytearray(originals[number % len(originals)])
        kind = rng.integers(3)
        if kind == 0:
            data = data[: rng.integers(len(data))]
        elif kind == 1:
            for place in rng.integers(len(data), size=20):
                data[place] ^= 1 << rng.integers(8)
        else:
            for place in rng.integers(min(len(data), 120), size=6):
                data[place] = rng.choice([0, 1, 127, 128, 255])
        paths.append(folder / f"{number}.{rng.choice(extensions)}")
        paths[-1].write_bytes(data)
    return paths


def run_python(command: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return done.stdout


def test_mutated_files_end_in_samples_or_an_audio_error(tmp_path):
    """In another process, which a decoder may crash; the alarm kills it if it hangs."""
    command = """
import signal, sys
from audio import reading
from audio.errors import AudioError
for path in sys.argv[1:]:
    signal.alarm(10)
    recording = reading.Recording(path)
    try:
        blocks = list(recording)
        print(recording.facts.decoder, sum(map(len, blocks)))
    except AudioError as error:
        print(error.condition)
"""
    outcomes = run_python(command, *mutants(tmp_path, 150)).splitlines()
    assert len(outcomes) == 150
    assert {outcome.split()[0] for outcome in outcomes} >= {"soundfile", "pyav", "unreadable"}


@pytest.mark.slow
@pytest.mark.parametrize("damaged_at_the_start", [False, True], ids=["soundfile", "pyav"])
def test_three_hours_take_no_more_memory_than_a_minute(tmp_path, damaged_at_the_start):
    path = tmp_path / "a.flac"
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(180):
            file.write(tone(60.0))
    if damaged_at_the_start:
        with path.open("r+b") as file:
            file.seek(20_000)
            file.write(bytes(1000))
    command = r"""
import re, sys
from audio import reading
def peak(): return int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read()).group(1)) / 1024
import av, soundfile, soxr
before, recording = peak(), reading.Recording(sys.argv[1])
for block in recording: pass
print(recording.facts.decoder, recording.facts.seconds, peak() - before)
"""
    decoder, seconds, growth = run_python(command, path).split()
    assert decoder == ("pyav" if damaged_at_the_start else "soundfile")
    assert float(seconds) == pytest.approx(3 * 3600, abs=1)
    assert float(growth) < 150, "MB"


def test_file_without_audio(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="an audio stream"):
        reading.read(tmp_path / "a.mp4")


def test_small_file_that_decodes_to_hours_is_refused(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        for _ in range(62):
            file.write(np.zeros(60 * RATE, np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 1e6
    with pytest.raises(UserError, match="too long.*at most 3600 s"):
        reading.read(tmp_path / "a.flac")


@pytest.mark.parametrize("length", [1, 5, 99, 100, 101, 250])
def test_fit_repeats_and_never_pads(length):
    samples = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit(samples, 100)
    assert fitted.shape == (100,)
    np.testing.assert_array_equal(fitted, np.resize(samples, 100))


def test_random_crops_reach_both_ends_and_exact_length_is_no_error():
    rng = np.random.default_rng(0)
    firsts = {int(fit(np.arange(103), 100, rng)[0]) for _ in range(100)}
    assert firsts == {0, 1, 2, 3}
    assert len(fit(np.arange(CHUNK_SAMPLES), CHUNK_SAMPLES, rng)) == CHUNK_SAMPLES


@pytest.mark.parametrize("length", [1, 99, 100, 101, 200, 299])
def test_chunks_cover_everything(length):
    samples = np.arange(length)
    pieces, starts = chunks(samples, 100)
    assert pieces.shape == (max(1, -(-length // 100)), 100)
    assert set(pieces.ravel()) == set(samples)
    np.testing.assert_array_equal(pieces[0], fit(samples, 100))  # the published score's chunk comes first
    for chunk, start in zip(pieces, starts, strict=True):
        assert chunk[0] == start


@pytest.mark.parametrize("hop", [7, 50, 100, 130])
@pytest.mark.parametrize("total", [0, 1, 99, 100, 101, 150, 199, 200, 207, 1234])
def test_chunks_of_pieces_are_those_of_the_whole(total, hop):
    samples = np.arange(total, dtype=np.float32)
    whole, starts = chunks(samples, 100, hop)
    if total < 100:
        assert len(whole) == (total > 0)
    else:
        expected = list(range(0, total - 99, hop))
        expected += [total - 100] * (expected[-1] != total - 100)
        assert starts.tolist() == expected
        np.testing.assert_array_equal(whole, [samples[start : start + 100] for start in starts])
    rng = np.random.default_rng(total)
    for _ in range(10):
        chunker, parts = Chunker(100, hop), []
        for piece in np.split(samples, np.sort(rng.integers(total + 1, size=rng.integers(20)))):
            reused = piece.copy()
            parts.append(chunker.feed(reused))
            reused[:] = -1  # as a sound card's buffer is
            assert sum(map(len, chunker._pieces)) < 100 + hop
        parts.append(chunker.end())
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), whole)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), starts)
