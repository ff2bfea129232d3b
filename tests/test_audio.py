import av
import numpy as np
import pytest
import soundfile

import audio
from cli import UserError

RATE = audio.SAMPLE_RATE


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encode(path, samples: np.ndarray, codec: str, rate: int = RATE) -> None:
    """Write mono samples through FFmpeg."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        frame.rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 0)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def test_flac_is_exact(tmp_path):
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, 20_000, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", samples, RATE)
    read = audio.read(tmp_path / "a.flac")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, samples / np.float32(32768))


def test_genuine_files_that_libsndfile_rejects(shared):
    """13 of ASVspoof2021's 30 files: the samples must be FFmpeg's."""
    rejected = 0
    for path in sorted((shared / "data" / "LA21_mini" / "flac").glob("*.flac")):
        with av.open(str(path)) as container:
            to_int = av.AudioResampler(format="s16", layout="mono")
            frames = [f.to_ndarray()[0] for frame in container.decode(audio=0) for f in to_int.resample(frame)]
        np.testing.assert_array_equal(audio.read(path), np.concatenate(frames) / np.float32(32768))
        try:
            soundfile.read(path)
        except soundfile.LibsndfileError:
            rejected += 1
    assert rejected == 13


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mp3", "libmp3lame")])
def test_lossy_formats(tmp_path, name, codec):
    samples = tone(2.0, 48_000)
    encode(tmp_path / name, samples, codec, rate=48_000)
    read = audio.read(tmp_path / name)
    assert abs(len(read) / RATE - 2.0) < 0.1
    spectrum = np.abs(np.fft.rfft(read[8000:24_000]))
    assert np.argmax(spectrum) == 440  # 1 Hz bins


def test_stereo_44_1_khz_becomes_mono_16_khz(tmp_path):
    left, right = tone(2.0, 44_100), np.zeros(88_200, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    read = audio.read(tmp_path / "a.wav")
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
        ("text", "no audio"),
        ("nan", "finite samples"),
    ],
)
def test_damaged_files_are_named(tmp_path, kind, words):
    path = damaged(tmp_path, kind)
    with pytest.raises(UserError, match=words) as error:
        audio.read(path)
    assert str(path) in str(error.value)


def test_file_without_audio(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UserError, match="an audio stream"):
        audio.read(tmp_path / "a.mp4")


def test_small_file_that_decodes_to_hours_is_refused(tmp_path):
    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1) as file:
        for _ in range(62):
            file.write(np.zeros(60 * RATE, np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 1e6
    with pytest.raises(UserError, match="too long.*at most 3600 s"):
        audio.read(tmp_path / "a.flac")


@pytest.mark.parametrize("length", [1, 5, 99, 100, 101, 250])
def test_fit_repeats_and_never_pads(length):
    samples = np.arange(1, length + 1, dtype=np.float32)
    fitted = audio.fit(samples, 100)
    assert fitted.shape == (100,)
    np.testing.assert_array_equal(fitted, np.resize(samples, 100))


def test_random_crops_reach_both_ends_and_exact_length_is_no_error():
    rng = np.random.default_rng(0)
    firsts = {int(audio.fit(np.arange(103), 100, rng)[0]) for _ in range(100)}
    assert firsts == {0, 1, 2, 3}
    assert len(audio.fit(np.arange(audio.CHUNK_SAMPLES), audio.CHUNK_SAMPLES, rng)) == audio.CHUNK_SAMPLES


@pytest.mark.parametrize("length", [1, 99, 100, 101, 200, 299])
def test_chunks_cover_everything(length):
    samples = np.arange(length)
    chunks, starts = audio.chunks(samples, 100)
    assert chunks.shape == (max(1, -(-length // 100)), 100)
    assert set(chunks.ravel()) == set(samples)
    np.testing.assert_array_equal(chunks[0], audio.fit(samples, 100))  # the published score's chunk comes first
    for chunk, start in zip(chunks, starts, strict=True):
        assert chunk[0] == start
