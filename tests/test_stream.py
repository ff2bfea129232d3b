"""audio/stream.py: raw PCM of any form becomes samples at 16 kHz; anything else on stdin ends in one line."""

import io

import av
import numpy as np
import pytest
import soundfile
from conftest import assert_user_error, run_command

from audio.stream import FORMATS, PcmStream, foreign
from common.errors import UserError

NOISE = 0.1 * np.random.default_rng(0).standard_normal(16_000)


def encoded(kind: str) -> bytes:
    """NOISE as a file."""
    file = io.BytesIO()
    if kind in ("mp3", "adts"):
        with av.open(
            file, "w", format=kind, options={"id3v2_version": "0", "write_xing": "0"} if kind == "mp3" else {}
        ) as out:
            stream = out.add_stream("libmp3lame" if kind == "mp3" else "aac", rate=16_000, layout="mono")
            form = "fltp"
            frame = av.AudioFrame.from_ndarray(NOISE[None].astype(np.float32), format=form, layout="mono")
            frame.rate = 16_000
            out.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        soundfile.write(file, NOISE, 16_000, format=kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF", "W64", "RF64", "CAF", "AU", "mp3", "adts"])
def test_a_file_is_no_stream(kind):
    with pytest.raises(UserError, match="expected samples as s16le, 1 channel, 16000 Hz, without a header, found"):
        list(PcmStream(io.BytesIO(encoded(kind))))


@pytest.mark.parametrize("text", [b"a line\n" * 9, "é".encode() * 5000, "a line\n".encode("utf-16"), b"{}"])
def test_text_is_no_stream(text):
    assert foreign(text[:4096]) == "text"


def test_no_sample_is_no_stream():
    for nothing in (b"", b"\0"):
        with pytest.raises(UserError, match="found none"):
            list(PcmStream(io.BytesIO(nothing)))


def test_pcm_is_never_taken_for_a_file():
    rng = np.random.default_rng(0)
    for scale in (0, 1, 30, 3000, 30_000):
        for _ in range(20):
            pcm = np.clip(scale * rng.standard_normal(2048), -32768, 32767).astype("<i2").tobytes()
            assert foreign(pcm) == foreign(b"\xff\xfb" + pcm[2:]) == ""


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_and_channel(form):
    kind, zero, full_scale = FORMATS[form]
    both = np.stack([NOISE, -0.5 * NOISE], axis=1)
    pcm = (both * full_scale + zero).astype(kind).tobytes()
    for channel, expected in ((None, both.mean(axis=1)), (1, both[:, 0]), (2, both[:, 1])):
        samples = np.concatenate(list(PcmStream(io.BytesIO(pcm), 16_000, 2, form, channel)))
        np.testing.assert_allclose(samples, expected, atol=2 / min(full_scale, 2**15) if full_scale > 1 else 1e-6)


def test_another_rate_is_resampled():
    tone = np.sin(2 * np.pi * 1000 * np.arange(44_100) / 44_100)
    samples = np.concatenate(list(PcmStream(io.BytesIO((tone * 30_000).astype("<i2").tobytes()), 44_100)))
    assert len(samples) == 16_000 and np.argmax(np.abs(np.fft.rfft(samples))) == 1000


def test_integers_taken_for_floats_are_refused():
    pcm = (3000 * np.random.default_rng(0).standard_normal(4000)).astype("<i2").tobytes()
    with pytest.raises(UserError, match="samples as f32le.*found values beyond full scale"):
        list(PcmStream(io.BytesIO(pcm), form="f32le"))


@pytest.mark.parametrize(
    ("options", "stdin", "words"),
    [
        ([], "", "found none"),
        ([], "some text", "found text"),
        (
            ["--stream_format", "f32le", "--stream_channels", "2", "--stream_rate", "48000"],
            "",
            "f32le, 2 channels, 48000 Hz",
        ),
        (["--channel", "2"], "", "the stream has 1"),
        (["--stream_rate", "0"], "", "--stream_rate"),
    ],
)
def test_the_command_ends_with_one_line(options, stdin, words):
    assert_user_error(run_command("inference.py", "--stream", "-", *options, input=stdin), words)
