"""Encoders, cepstra and resampling beside torchaudio's own.

Most tests skip where it cannot be imported: `make test-torchaudio` runs them.
"""

import sys

import numpy as np
import pytest
import soxr
import torch

from common.errors import UserError
from models import build_model
from models.LFCC_LCNN import EPS, LFCC
from models.torchaudio_encoder import converted, import_torchaudio

try:
    torchaudio = import_torchaudio()
except UserError:
    torchaudio = None
needs_torchaudio = pytest.mark.skipif(torchaudio is None, reason="needs requirements-torchaudio.txt")
SIZES = {
    "extractor_conv_layer_config": [(8, 10, 5), (8, 8, 4), (8, 8, 8)], "extractor_conv_bias": True,
    "encoder_embed_dim": 8, "encoder_projection_dropout": 0.0, "encoder_pos_conv_kernel": 8,
    "encoder_pos_conv_groups": 2, "encoder_num_layers": 2, "encoder_num_heads": 2, "encoder_attention_dropout": 0.0,
    "encoder_ff_interm_features": 16, "encoder_ff_interm_dropout": 0.0, "encoder_dropout": 0.0,
    "encoder_layer_drop": 0.0, "aux_num_out": None,
}  # fmt: skip
BACK_END = {
    "architecture": "SSL_AASIST", "nb_samp": 4000, "filts": [9, [1, 4], [4, 4], [4, 4], [4, 4]], "gat_dims": [4, 4],
    "pool_ratios": [0.5, 0.5, 0.5], "temperatures": [2.0, 2.0, 100.0], "layers": "last", "do_normalize": False,
}  # fmt: skip


def test_a_torchaudio_that_cannot_be_imported_is_one_line(monkeypatch):
    """Missing, or its library does not fit torch's."""
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    pytest.importorskip("transformers")
    with pytest.raises(UserError, match="torchaudio cannot be imported.*requirements-torchaudio.txt"):
        build_model(BACK_END | {"encoder": "torchaudio:WAV2VEC2_XLSR_300M"})


def their_model(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "wavlm":
        more = {"encoder_num_buckets": 32, "encoder_max_distance": 80, "encoder_layer_norm_first": False}
        model = torchaudio.models.wavlm_model(extractor_mode="group_norm", **SIZES, **more)
    else:
        mode, first = ("layer_norm", True) if kind == "wav2vec2" else ("group_norm", False)
        model = torchaudio.models.wav2vec2_model(extractor_mode=mode, **SIZES, encoder_layer_norm_first=first)
    for name, x in model.state_dict().items():  # torchaudio starts its norms and these gates at constants
        if x.is_floating_point() and ("norm" in name or "gru" in name):
            x.add_(0.1 * torch.randn_like(x))
    return model.eval()


@needs_torchaudio
@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_converted_encoders_compute_what_torchaudio_does(kind):
    pytest.importorskip("transformers")
    theirs = their_model(kind)
    weights, architecture = converted(theirs, kind)
    ours = build_model(BACK_END | {"encoder_config": architecture}).eval()
    ours.ssl_model.load_state_dict(weights)
    x = 0.1 * torch.randn(2, 4000)
    with torch.inference_mode():
        expected, _ = theirs(x)
        torch.testing.assert_close(ours.represent(x), expected, rtol=1e-4, atol=1e-5)


@needs_torchaudio
def test_the_fixture_scores_the_same_in_both(shared):
    """SSL_Anti-spoofing's tiny encoder by transformers and by torchaudio: logits within 1e-5."""
    pytest.importorskip("transformers")
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    from utils import load_model

    model, _ = load_model(shared / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth")
    theirs = import_huggingface_model(model.ssl_model).eval()
    x = torch.from_numpy(np.load(shared / "fixtures" / "logits" / "aasist.npz")["waveforms"][:2])
    with torch.inference_mode():
        expected = model(x)[1]
        model.represent = lambda x: theirs(x)[0]
        torch.testing.assert_close(model(x)[1], expected, rtol=0, atol=1e-5)


@needs_torchaudio
def test_resampling_keeps_what_torchaudio_keeps():
    """Speech's band, from 44.1 kHz: both resamplers agree to a thousandth."""
    t = np.arange(44_100) / 44_100
    x = np.sin(2 * np.pi * 440 * t) + 0.5 * np.sin(2 * np.pi * 3000 * t)
    ours = soxr.resample(x, 44_100, 16_000)
    options = {"lowpass_filter_width": 64, "rolloff": 0.95, "resampling_method": "sinc_interp_kaiser"}
    theirs = torchaudio.functional.resample(torch.from_numpy(x), 44_100, 16_000, **options).numpy()
    assert np.abs(ours[1000:15_000] - theirs[1000:15_000]).max() < 2e-3


@needs_torchaudio
def test_cepstra_are_made_of_torchaudios_parts():
    """Spectrogram, linear filters and DCT; without deltas and the energy."""
    x = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    emphasised = torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], dim=1)
    functional = torchaudio.functional
    form = {"n_fft": 512, "hop_length": 160, "win_length": 320, "power": 2.0, "normalized": False}
    power = functional.spectrogram(emphasised, 0, torch.hamming_window(320), **form, pad_mode="constant")
    filters = functional.linear_fbanks(257, 0.0, 8000.0, 20, 16_000)
    cepstra = torch.log10(power.transpose(1, 2) @ filters + EPS) @ functional.create_dct(20, 20, "ortho")
    torch.testing.assert_close(LFCC(20)(x)[..., 1:20], cepstra[..., 1:], rtol=1e-3, atol=1e-3)
