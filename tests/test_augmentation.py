"""Augmentation: each transform does what its paper says, as measured; lengths, levels, seeds; ugly signals."""

import importlib
import pickle
import pkgutil

import numpy as np
import pytest
import soundfile
from conftest import assert_user_error, run_command
from scipy import signal

import audio
from audio import SAMPLE_RATE, codecs, gallery
from audio.augmentation import TRANSFORMS, build_augmentation
from audio.chunks import CHUNK_SAMPLES
from audio.codecs import FORMATS
from audio.rawboost import notch_filters
from audio.rooms import impulse_response
from audio.transforms import Transform
from common.errors import UserError

RATE = SAMPLE_RATE
COUNT = CHUNK_SAMPLES
EVERY = [
    *({"name": name, "probability": 1.0} for name in TRANSFORMS if name not in ("rawboost", "codec")),
    *({"name": "rawboost", "combination": name} for name in ("lnl", "isd", "ssi", "lnl+isd+ssi", "lnl+isd", "lnl|isd")),
    *({"name": "codec", "formats": [name]} for name in FORMATS),
    {"name": "silence", "added": [0.1, 0.2]},
]
NAMES = [" ".join(str(value) for key, value in spec.items() if key != "probability") for spec in EVERY]
every = pytest.mark.parametrize("spec", EVERY, ids=NAMES)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def white(count: int = COUNT, level: float = 0.1) -> np.ndarray:
    return level * rng(99).standard_normal(count, np.float32)


def speech_like(count: int = COUNT) -> np.ndarray:
    """A gliding harmonic voice in syllables, with quiet noise throughout."""
    time = np.arange(count) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    voice = sum(np.cos(k * phase + k * k) / k for k in range(1, 30)) * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    return (0.12 * voice + 1e-3 * rng(1).standard_normal(count)).astype(np.float32)


def applied(x: np.ndarray, seed: int = 0, **spec) -> np.ndarray:
    made, generator = build_augmentation([spec]), rng(seed)
    return made.crop(made.whole(x, generator), generator)


def decibel(power: float) -> float:
    return float(10 * np.log10(power))


def power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def band_power(x: np.ndarray, low: float, high: float) -> float:
    frequencies, density = signal.welch(x, RATE, nperseg=4096)
    return float(density[(frequencies >= low) & (frequencies < high)].mean())


def lag(y: np.ndarray, x: np.ndarray) -> int:
    """Samples by which `y` comes after `x`."""
    correlation = signal.correlate(y, x)
    return int(np.argmax(correlation)) - (len(x) - 1)


# -------------------------------------------------------------------------------------------------------- all of them


@every
def test_same_generator_same_bits_and_the_input_stays(spec):
    x = speech_like()
    before = x.copy()
    x.flags.writeable = False  # as a mapped file is
    first, again, other = (applied(x, seed, **spec) for seed in (3, 3, 4))
    assert first.dtype == np.float32
    assert np.array_equal(first, again)
    assert np.array_equal(x, before)
    if spec["name"] not in ("polarity", "silence", "codec") or spec.get("added"):
        assert not np.array_equal(first, other)
    if not TRANSFORMS[spec["name"]].whole:
        assert len(first) == len(x)
        assert not np.shares_memory(first, x)


UGLY = {
    "silence": np.zeros(COUNT),
    "one sample": np.array([0.5]),
    "one zero": np.zeros(1),
    "two samples": np.array([0.1, -0.3]),
    "short": white(37),
    "odd": white(4001),
    "DC": np.full(5000, 0.5),
    "full-scale square": np.sign(np.sin(np.arange(9999) * 0.01) + 1e-9),
    "denormal": np.full(1000, 1e-40),
    "far above full scale": 1e6 * white(8000),
    "zeros, then sound": np.append(np.zeros(8000), white(8000)),
}


@pytest.mark.filterwarnings("error")
@every
@pytest.mark.parametrize("ugly", UGLY)
def test_ugly_signals_stay_finite(spec, ugly):
    x = UGLY[ugly].astype(np.float32)
    made = build_augmentation([spec])
    for seed in range(3):
        generator = rng(seed)
        whole = made.whole(x, generator)
        y = made.crop(whole, generator)
        assert y.dtype == np.float32
        assert y.ndim == 1
        assert len(y) == len(whole) >= 1
        assert TRANSFORMS[spec["name"]].whole or len(whole) == len(x)
        assert np.isfinite(y).all()


@every
def test_silence_is_not_filled(spec):
    """Noise relative to silence is silence; only a codec may add idle noise, and `offset` an offset."""
    y = applied(np.zeros(COUNT, np.float32), **spec)
    assert np.abs(y).max() <= (1e-3 if spec["name"] in ("codec", "offset") else 0)


def test_order_probability_and_place():
    x = np.full(100, 0.5, np.float32)
    loud, upside_down = {"name": "gain", "decibels": [20, 20]}, {"name": "polarity", "probability": 1}
    assert np.allclose(build_augmentation([loud, upside_down]).crop(x, rng()), -5)
    clip = {"name": "clipping", "share": [1, 1]}
    ramp = np.linspace(0, 1, 100, dtype=np.float32)
    noise = {"name": "noise", "snr": [0, 0]}
    assert not np.array_equal(
        build_augmentation([noise, clip]).crop(ramp, rng()), build_augmentation([clip, noise]).crop(ramp, rng())
    )
    never = build_augmentation([spec | {"probability": 0.0} for spec in EVERY])
    assert np.array_equal(never.crop(never.whole(x, rng()), rng()), x)
    assert np.array_equal(build_augmentation([loud]).whole(x, rng()), x)
    assert len(build_augmentation([{"name": "speed", "ratio": [2, 2]}]).crop(x, rng())) == 100
    often, generator = build_augmentation([upside_down | {"probability": 0.3}]), rng()
    fraction = np.mean([often.crop(x, generator)[0] < 0 for _ in range(4000)])
    assert fraction == pytest.approx(0.3, abs=0.03)
    assert np.array_equal(build_augmentation([]).crop(x, rng()), x)


def test_workers_can_have_it():
    made = build_augmentation(EVERY)
    assert pickle.loads(pickle.dumps(made)) == made


def test_every_transform_of_the_package_is_listed_by_its_name():
    for module in pkgutil.iter_modules(audio.__path__, "audio."):
        importlib.import_module(module.name)
    classes, found = [Transform], set()
    while classes:
        subclasses = classes.pop().__subclasses__()
        classes += subclasses
        found |= {subclass for subclass in subclasses if "name" in vars(subclass)}
    assert found == set(TRANSFORMS.values())
    assert all(name == transform.name for name, transform in TRANSFORMS.items())


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([{"name": "rawbost"}], ["unknown augmentation", "'rawboost'", *TRANSFORMS, "found 'rawbost'"]),
        ([{"name": "xyzzy"}], ["one of", *TRANSFORMS]),
        ([{"name": 5}], ["unknown augmentation"]),
        ([{"probability": 1.0}], ["a mapping with a name"]),
        (["rawboost"], ["a mapping with a name", "'rawboost'"]),
        ({"name": "gain"}, ["a list of mappings"]),
        ("gain", ["a list of mappings"]),
        ([{"name": "gain", "decibel": [0, 1]}], ["unknown key", "'gain.decibels'", "'gain.decibel'"]),
        ([{"name": "gain", "decibels": 3}], ["'gain.decibels'", "a list of 2 values", "3"]),
        ([{"name": "gain", "decibels": [3, 1]}], ["'gain.decibels'", "[lowest, highest]"]),
        ([{"name": "gain", "decibels": [3, "x"]}], ["'gain.decibels[1]'", "a number"]),
        ([{"name": "gain", "probability": 1.5}], ["'gain.probability'", "0 … 1", "1.5"]),
        ([{"name": "rawboost", "combination": 5}], ["'rawboost.combination'", "lnl+isd", "5"]),
        ([{"name": "rawboost", "taps": [10.5, 100]}], ["'rawboost.taps[0]'", "whole number"]),
        ([{"name": "codec", "formats": []}], ["'codec.formats'", "at least one"]),
        ([{"name": "codec", "formats": ["mp4"]}], ["'codec.formats[0]'", "opus", "'mp4'"]),
        ([{"name": "codec", "formats": ["opus"], "bitrates": [100, 128]}], ["'codec.bitrates'", "opus's 6 … 64"]),
        ([{"name": "band", "lowest": None, "highest": None}], ["'band.highest'"]),
        ([{"name": "speed", "ratio": [0, 1]}], ["'speed.ratio'", "from 0.25"]),
        ([{"name": "noise", "colours": ["red"]}], ["'noise.colours[0]'", "white, pink, brown"]),
    ],
)
def test_mistakes_are_named(specs, words):
    with pytest.raises(UserError) as error:
        build_augmentation(specs)
    for word in words:
        assert word in str(error.value)


def test_an_encoder_that_is_not_there(monkeypatch):
    missing = FORMATS["amr_nb"]._replace(encoder="libnothing")
    monkeypatch.setitem(FORMATS, "amr_nb", missing)
    with pytest.raises(UserError, match="no encoder of amr_nb — expected of mu_law, .*opus"):
        build_augmentation([{"name": "codec"}])
    build_augmentation([{"name": "codec", "formats": ["opus"]}])


# ------------------------------------------------------------------------------------------------------------ RawBoost


def published_filter(seed: int, gain: float) -> np.ndarray:
    """One filter by scipy's designs, one notch after the other."""
    draw = rng(seed)
    centres, widths = draw.uniform(20, 8000, (1, 5, 1)).ravel(), draw.uniform(100, 1000, (1, 5, 1)).ravel()
    counts = draw.integers(10, 100, (1, 5, 1), endpoint=True).ravel()
    taps = np.ones(1)
    for centre, width, count in zip(centres, widths, counts, strict=True):
        edges = max(centre - width / 2, 1e-3), min(centre + width / 2, 8000 - 1e-3)
        taps = np.convolve(signal.firwin(count | 1, edges, window="hamming", fs=RATE, scale=False), taps)
    return 10 ** (gain / 20) * taps / np.abs(signal.freqz(taps, fs=RATE)[1]).max()


@pytest.mark.parametrize("seed", range(5))
def test_notch_filters_are_scipys(seed):
    ours = notch_filters(rng(seed), np.array([-7.0]), 5, (20, 8000), (100, 1000), (10, 100))[0]
    theirs = published_filter(seed, -7.0)
    margin = (len(ours) - len(theirs)) // 2
    assert len(ours) % 2 == 1
    assert np.allclose(ours, np.pad(theirs, margin), atol=2e-4 * np.abs(theirs).max())


def test_lnl_is_the_sum_of_filtered_powers():
    x = speech_like(20_000)
    draw = rng(5)
    draw.random()  # decides whether to apply it
    gains = draw.uniform(0, 0, 5)
    gains[1:] -= draw.uniform(5, 20, 4)
    filters = notch_filters(draw, gains, 5, (20, 8000), (100, 1000), (10, 100))
    delay = filters.shape[1] // 2
    padded = np.pad(x.astype(float), (0, delay))
    expected = sum(signal.lfilter(taps, 1, padded ** (k + 1))[delay:] for k, taps in enumerate(filters))
    expected -= expected.mean()
    ours = applied(x, seed=5, name="rawboost", combination="lnl")
    assert np.allclose(ours, expected / max(1, np.abs(expected).max()), atol=1e-5)
    assert lag(ours, x) == 0


def test_isd_changes_a_fraction_of_the_samples_in_proportion():
    x = speech_like()
    fractions, jumps = [], []
    for seed in range(30):
        y = applied(x, seed=seed, name="rawboost", combination="isd")
        y *= np.median(x[x != 0] / y[x != 0])  # the peak may have been scaled down
        moved = ~np.isclose(y, x, rtol=1e-4, atol=0)
        fractions.append(moved.mean())
        jumps.append(np.abs(y / x - 1)[moved & (x != 0)])
        assert (np.abs(y - x) <= 2.001 * np.abs(x)).all()
    assert max(fractions) <= 0.1
    assert np.mean(fractions) == pytest.approx(0.05, abs=0.02)
    assert np.concatenate(jumps).mean() == pytest.approx(
        2 / 4, abs=0.01
    )  # g_sd · |product of two uniform draws from −1 … 1|


@pytest.mark.parametrize("snr", [10.0, 25.0])
def test_ssi_has_its_ratio(snr):
    x = speech_like()
    noise = applied(x, name="rawboost", combination="ssi", snr=[snr, snr]) - x
    assert decibel(power(x) / power(noise)) == pytest.approx(snr, abs=0.02)


@pytest.mark.parametrize("combination", ["lnl", "isd", "lnl+isd", "lnl|isd"])
def test_rawboost_stays_within_full_scale(combination):
    for seed in range(10):
        y = applied(3 * white(), seed=seed, name="rawboost", combination=combination)
        assert np.abs(y).max() <= 1


# -------------------------------------------------------------------------------------------------------------- codecs


def voice_band(x: np.ndarray) -> np.ndarray:
    return signal.sosfiltfilt(signal.butter(4, (400, 3000), "bandpass", fs=RATE, output="sos"), x)


@pytest.mark.parametrize("count", [COUNT, 7777])
@pytest.mark.parametrize("name", FORMATS)
def test_codecs_are_aligned(name, count):
    best = FORMATS[name].bitrates[1]
    x = speech_like(count)
    before, after = voice_band(x), voice_band(applied(x, name="codec", formats=[name], bitrates=[best, best]))
    parametric = name in ("amr_nb", "opus")  # these keep the sound rather than the waveform
    assert abs(lag(after, before)) <= parametric
    assert decibel(power(after - before) / power(before)) < (-8 if parametric else -20)
    ends = decibel(power(after[-2000:]) / power(before[-2000:]))  # the codec gives out the last samples too
    assert ends == pytest.approx(0, abs=1.5)


def g711_mu_law(samples: np.ndarray) -> np.ndarray:
    """16-bit samples through ITU-T G.711's μ-law: 8 segments of 16 steps, in closed form."""
    magnitude = np.minimum(np.abs(samples), 32635) + 132
    exponent = np.floor(np.log2(magnitude)).astype(int) - 7
    mantissa = (magnitude >> (exponent + 3)) & 15
    return np.sign(samples) * ((((mantissa << 3) + 132) << exponent) - 132)


def test_mu_law_is_g711s():
    samples = np.arange(-32767, 32768, 7)
    kind = FORMATS["mu_law"]
    decoded, rate = codecs.decode(kind, *codecs.encode(kind, (samples / 32767).astype(np.float32), 64))
    ours = np.rint(decoded[: len(samples)] * 32767)
    step = 1 << np.maximum(np.floor(np.log2(np.abs(samples) + 132)).astype(int) - 4, 0)
    assert rate == 8000
    assert (ours == g711_mu_law(samples)).mean() > 0.98
    assert (np.abs(ours - g711_mu_law(samples)) <= step).all()  # at the edge of a step FFmpeg may round the other way


@pytest.mark.parametrize("name", ["mu_law", "a_law"])
def test_g711_is_a_telephone_line(name):
    x = white()
    y = applied(x, name="codec", formats=[name])
    for low, high, least, most in ((0, 150, -199, -30), (400, 3200, -1, 1), (4100, 8000, -199, -30)):
        gain = decibel(band_power(y, low, high) / band_power(x, low, high))
        assert least < gain < most, (low, high, gain)


@pytest.mark.parametrize("name", ["mp3", "aac", "opus", "amr_nb"])
def test_bit_rates_tell(name):
    x = speech_like()
    versions = [applied(x, name="codec", formats=[name], bitrates=[at, at]) for at in FORMATS[name].bitrates]
    errors = [power(voice_band(y - x)) for y in versions]
    assert errors[0] > 2 * errors[1]


def test_every_format_is_drawn():
    x, made = white(8000), build_augmentation([{"name": "codec"}])
    versions = [made.crop(x, rng(seed)) for seed in range(40)]
    narrow = [band_power(y, 4500, 8000) < 1e-3 * band_power(x, 4500, 8000) for y in versions]
    assert 10 < sum(narrow) < 35  # three of the seven


def test_a_codec_clips_above_full_scale():
    x = 10 * white(8000, level=1.0)
    assert np.abs(applied(x, name="codec", formats=["g722"])).max() <= 1.01
    assert np.abs(applied(x, name="codec", formats=["aac"], bitrates=[96, 96])).max() < 3  # AAC overshoots


# ----------------------------------------------------------------------------------------------------- noise and rooms


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize("snr", [-5.0, 20.0])
def test_noise_has_its_ratio_and_colour(colour, snr):
    x = speech_like()
    noise = applied(x, name="noise", colours=[colour], snr=[snr, snr]) - x
    assert decibel(power(x) / power(noise)) == pytest.approx(snr, abs=0.02)
    slope = decibel(band_power(noise, 3000, 5000) / band_power(noise, 300, 500))  # a decade
    expected = {"white": 0, "pink": -10, "brown": -20}[colour]
    assert slope == pytest.approx(expected, abs=0.8)


def test_noise_of_a_folder(tmp_path):
    (tmp_path / "rain").mkdir()
    hum = 0.2 * np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    soundfile.write(tmp_path / "rain" / "hum.wav", hum, RATE)
    (tmp_path / "README.txt").write_text("about the noise")
    x = white()
    made = build_augmentation([{"name": "noise", "folder": str(tmp_path), "snr": [0, 0]}])
    assert [path.name for path in made.transforms[0].files] == ["hum.wav"]
    noise = made.crop(x, rng()) - x
    assert decibel(power(x) / power(noise)) == pytest.approx(0, abs=0.02)
    assert band_power(noise, 990, 1010) > 1000 * band_power(noise, 2000, 8000)
    soundfile.write(tmp_path / "rain" / "hum.wav", np.zeros(100), RATE)
    assert np.array_equal(made.crop(x, rng()), x)  # the file is silent: nothing is added


@pytest.mark.parametrize("name", ["noise", "room"])
def test_folders_at_fault(name, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=f"'{name}.folder' — expected a folder with audio files, found {folder}"):
            build_augmentation([{"name": name, "folder": str(folder)}])
    (tmp_path / "broken.wav").write_bytes(b"RIFF but nothing else")
    made = build_augmentation([{"name": name, "folder": str(tmp_path)}])
    with pytest.raises(UserError, match="broken.wav"):
        made.crop(white(), rng())


@pytest.mark.parametrize("rt60", [0.2, 0.5, 1.0])
def test_a_rooms_decay_by_schroeder(rt60):
    response = impulse_response(rng(3), rt60, 0.0)
    tail = response[1:][np.flatnonzero(response[1:])[0] :].astype(float)
    curve = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # backward integration, 1965
    first, last = np.flatnonzero(curve < -5)[0], np.flatnonzero(curve < -25)[0]
    slope = np.polyfit(np.arange(first, last) / RATE, curve[first:last], 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.06)


@pytest.mark.parametrize("drr", [-6.0, 12.0])
def test_a_rooms_direct_sound_and_level(drr):
    response = impulse_response(rng(1), 0.4, drr)
    assert response[0] == 1
    assert not response[1:17].any()
    assert decibel(1 / np.sum(response[1:].astype(float) ** 2)) == pytest.approx(drr, abs=0.01)
    x = white()
    y = applied(x, name="room", drr=[drr, drr])
    assert power(y) == pytest.approx(power(x), rel=1e-4)
    assert lag(y, x) == 0


def test_a_recorded_room_is_aligned(tmp_path):
    response = np.zeros(3000)
    response[[700, 1500]] = 0.5, -0.2  # 700 samples until the direct sound arrives
    soundfile.write(tmp_path / "hall.wav", response, RATE)
    x = white()
    y = applied(x, name="room", folder=str(tmp_path))
    expected = x.copy()
    expected[800:] -= 0.4 * x[:-800]
    assert np.allclose(y / np.sqrt(power(y)), expected / np.sqrt(power(expected)), atol=1e-2)
    assert power(y) == pytest.approx(power(x), rel=1e-4)


# ---------------------------------------------------------------------------------- duration, amplitude, band and masks


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_speed_changes_length_and_pitch(ratio):
    x = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    y = applied(x, name="speed", ratio=[ratio, ratio])
    assert len(y) == pytest.approx(RATE / ratio, abs=2)
    spectrum = np.abs(np.fft.rfft(y * np.hanning(len(y))))
    assert np.argmax(spectrum) * RATE / len(y) == pytest.approx(1000 * ratio, abs=2)
    assert np.abs(y[1000:-1000]).max() == pytest.approx(1, abs=0.01)


def test_silence_is_cut_at_both_ends_and_added():
    quiet = 1e-4 * white(RATE)
    x = np.concatenate([quiet[:9600], white(16_000), quiet[:3200]])
    assert len(applied(x, name="silence", cut=[1, 1])) == 16_000
    assert np.array_equal(applied(x, name="silence", cut=[0, 0]), x)
    lengths = {len(applied(x, seed=seed, name="silence")) for seed in range(20)}
    assert len(lengths) > 10
    assert min(lengths) >= 16_000
    assert max(lengths) <= len(x)
    longer = applied(x, name="silence", cut=[0, 0], added=[0.25, 0.25])
    assert len(longer) == len(x) + 8000
    assert decibel(power(longer[:4000]) / power(quiet)) == pytest.approx(0, abs=1.5)
    assert np.array_equal(longer[4000:-4000], x)
    pause = np.concatenate([white(8000), quiet, white(8000)])
    assert len(applied(pause, name="silence", cut=[1, 1])) == len(pause)  # only the ends


def test_offset_replaces_the_one_there_is():
    x = speech_like() + np.float32(0.2)
    y = applied(x, name="offset", level=[-0.1, -0.1])
    assert y.mean() == pytest.approx(-0.1, abs=1e-6)
    assert np.allclose(y - y.mean(), x - x.mean(), atol=1e-6)


def test_gain_polarity_and_clipping():
    x = speech_like()
    assert np.allclose(applied(x, name="gain", decibels=[-6, -6]), x * 10 ** (-6 / 20))
    assert np.array_equal(applied(x, name="polarity", probability=1), -x)
    y = applied(x, name="clipping", share=[0.1, 0.1])
    assert np.mean(np.abs(y) == np.abs(y).max()) == pytest.approx(0.1, abs=0.001)
    assert np.array_equal(y[np.abs(y) < np.abs(y).max()], x[np.abs(y) < np.abs(y).max()])


def test_band_is_3_db_down_at_its_ends():
    click = np.zeros(COUNT, np.float32)
    click[30_000] = 1
    y = applied(click, name="band", lowest=[200, 200], highest=[4000, 4000], order=[4, 4])
    gain = 20 * np.log10(np.abs(np.fft.rfft(y)) + 1e-9)
    at = {hertz: gain[round(hertz * COUNT / RATE)] for hertz in (100, 200, 1000, 4000, 8000)}
    assert at[200] == pytest.approx(-3.01, abs=0.1)
    assert at[4000] == pytest.approx(-3.01, abs=0.1)
    assert at[1000] == pytest.approx(0, abs=0.05)
    assert at[100] == pytest.approx(-24, abs=1)  # an octave at order 4
    assert at[8000] == pytest.approx(-24, abs=1)
    assert np.argmax(y) == 30_000
    only = applied(white(), name="band", lowest=None, highest=[3000, 3000], order=[20, 20])
    assert band_power(only, 0, 200) == pytest.approx(band_power(white(), 0, 200), rel=0.01)


def test_masks_hide_what_they_say():
    x = np.ones(COUNT, np.float32)
    y = applied(x, name="time_mask", count=1, seconds=[0.2, 0.2])
    assert (y == 0).sum() == pytest.approx(3200, abs=2)
    assert ((y > 0) & (y < 1)).sum() <= 64  # two edges of 2 ms
    assert np.ptp(np.flatnonzero(y == 0)) == (y == 0).sum() - 1
    hidden = applied(white(), name="frequency_mask", count=1, hertz=[1000, 1000])
    density = signal.welch(hidden, RATE, nperseg=1024)[1] / signal.welch(white(), RATE, nperseg=1024)[1]
    width = (density < 0.01).mean() * 8000
    assert width == pytest.approx(1000, abs=60)
    assert np.median(density) == pytest.approx(1, abs=0.01)


# ------------------------------------------------------------------------------------------------------------- command


def test_the_gallery(tmp_path):
    soundfile.write(tmp_path / "a b.flac", speech_like(20_000), RATE)
    output, folder = tmp_path / "gallery.v1.png", tmp_path / "wav"
    done = run_command("audio.gallery", tmp_path / "a b.flac", "--output", output, "--save", folder)
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().startswith(b"\x89PNG")
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 1 + len(gallery.EXAMPLES)
    assert names[0] == "00_original.wav"
    assert np.allclose(soundfile.read(folder / names[0])[0], speech_like(20_000), atol=1e-4)


def test_the_gallerys_mistakes(tmp_path):
    assert_user_error(run_command("audio.gallery", tmp_path / "none.wav", "--output", "a.png"), "none.wav")
    soundfile.write(tmp_path / "a.wav", white(4000), RATE)
    for arguments, word in (
        (["--output", "a.jpg"], ".png"),
        (["--output", "a.png", "--seed", -1], "--seed"),
        ([], "output"),
    ):
        assert_user_error(run_command("audio.gallery", tmp_path / "a.wav", *arguments), word)
