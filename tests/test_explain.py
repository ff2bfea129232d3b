"""Saliency maps: they depend on the weights, point at what the score rests on, and leave the model unchanged."""

import copy

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from scipy.stats import spearmanr
from torch.nn import functional as F

from audio import reading
from audio.chunks import CHUNK_SAMPLES, fit
from common.errors import UserError
from models import build_model
from models.layers import SincBank
from models.LFCC_LCNN import LinearFilterBank
from scoring.explain import Saliency, saliency, saliency_sentence
from utils import load_model

RNG = np.random.default_rng(5)
NOISE = RNG.normal(0, 0.1, TINY_MODEL["nb_samp"]).astype(np.float32)


@pytest.fixture(scope="module")
def official(shared):
    return load_model(shared / "fixtures" / "weights" / "AASIST.pth")


@pytest.fixture(scope="module")
def spoofs(shared) -> list[np.ndarray]:
    """The first chunk of the first six spoofed utterances, one after the other in the protocol."""
    corpus = shared / "data" / "LA_mini"
    protocol = corpus / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.eval.trl.txt"
    trials = [line.split() for line in protocol.read_text().splitlines()]
    names = [trial[1] for trial in trials if trial[4] == "spoof"][:6]
    paths = [corpus / "ASVspoof2019_LA_eval" / "flac" / f"{name}.flac" for name in names]
    return [fit(reading.read(path), CHUNK_SAMPLES) for path in paths]


LCNN = {"architecture": "LFCC_LCNN", "channels": [4, 6, 8, 4]}
TINY_LCNN = LCNN | {"nb_samp": 8000}
LOW = LCNN | {"highest": 4000, "nb_filters": 16}
TINY_ENSEMBLE = {"architecture": "Ensemble", "nb_samp": 8000, "members": [LCNN, LOW]}


def tiny(seed: int = 3) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_model(TINY_MODEL).eval()


def test_the_map_spans_the_chunk_and_the_bands():
    found = saliency(tiny(), NOISE, start=12.5)
    assert (found.start, found.seconds) == (12.5, 0.5)
    assert found.weight.shape == (70, 50) and found.weight.dtype == np.float32
    assert found.weight.min() == 0 and found.weight.max() == 1
    mel = 2595 * np.log10(1 + found.frequencies / 700)
    assert np.all(np.diff(found.frequencies) > 0)
    np.testing.assert_allclose(np.diff(mel)[8:-2], 2840.023 / 70, rtol=0.05)  # lower ones are as narrow as taps allow


def test_silence_supports_nothing():
    assert not saliency(tiny(), np.zeros_like(NOISE)).weight.any()


def test_spoof_and_bonafide_share_no_point():
    spoof, bonafide = (saliency(tiny(), NOISE, target=target).weight for target in ("spoof", "bonafide"))
    assert spoof.any() and bonafide.any() and not (spoof * bonafide).any()


@pytest.mark.parametrize("config", [TINY_MODEL, TINY_LCNN, TINY_ENSEMBLE], ids=lambda config: config["architecture"])
def test_evidence_of_spoof_lowers_the_score(config):
    """Weaker evidence for spoof gives a higher score, weaker evidence for bona fide a lower one."""
    torch.manual_seed(3)
    model = build_model(config).eval()
    for target, sign in (("spoof", 1), ("bonafide", -1)):
        fainter = torch.from_numpy(1 - 0.01 * saliency(model, NOISE, target=target).weight)
        assert sign * (_score(model, NOISE, fainter) - _score(model, NOISE)) > 0


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_unchanged(training):
    model = tiny().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learnt = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():  # as a server may call it
        saliency(model, NOISE)
    assert model.training == training and not model.conv_time._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == learnt
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_hook_goes_even_when_the_model_fails():
    model = tiny()
    with pytest.raises(RuntimeError):
        saliency(model, NOISE[:64])  # shorter than a filter
    assert not model.conv_time._forward_hooks


def test_the_map_of_an_ensemble_is_the_sum_of_its_members():
    """At the first one's 20 filters up to 8 kHz; the second one has 16 up to 4 kHz."""
    torch.manual_seed(3)
    ensemble = build_model(TINY_ENSEMBLE).eval()

    def without(member: int) -> Saliency:
        model = copy.deepcopy(ensemble)
        model.members[member].out_layer.weight.data.zero_()
        return saliency(model, NOISE)

    first, second = without(1), without(0)
    np.testing.assert_allclose(first.weight, saliency(ensemble.members[0], NOISE).weight, atol=1e-5)
    np.testing.assert_array_equal(first.frequencies, second.frequencies)
    low = second.frequencies < 4000
    assert second.weight[low].any() and not second.weight[~low][1:].any()  # neighbours are averaged


def test_a_model_without_a_filter_bank_is_refused():
    with pytest.raises(UserError, match="a filter bank, found Linear"):
        saliency(torch.nn.Linear(2, 2), NOISE)


def test_the_map_follows_the_weights(official, spoofs):
    """The sanity check of Adebayo et al. (arXiv 1810.03292): random weights, another map; the same ones, the same."""
    model, checkpoint = official
    torch.manual_seed(0)
    randomised = build_model(checkpoint["config"]["model_config"]).eval()
    first, again, other = (saliency(m, spoofs[0]).weight for m in (model, model, randomised))
    np.testing.assert_array_equal(first, again)
    assert abs(spearmanr(first.ravel(), other.ravel()).statistic) < 0.3


@pytest.mark.slow
def test_the_score_rests_on_the_salient_tenth(official, spoofs):
    """Silencing it in the bank's output moves spoofs' scores towards bona fide more than silencing another tenth does.

    The other tenth has the same shape in the same bands, half a chunk away. Only the mean is asserted: in one of four
    files, those of A08 and A12 foremost, another place may matter as much.
    """
    model, _ = official
    rises = []
    for chunk in spoofs:
        weight = saliency(model, chunk).weight
        salient = torch.from_numpy((weight < np.quantile(weight, 0.9)).astype(np.float32))
        elsewhere = salient.roll(salient.shape[1] // 2, dims=1)
        score = _score(model, chunk)
        rises.append([_score(model, chunk, kept) - score for kept in (salient, elsewhere)])
    salient, elsewhere = np.mean(rises, axis=0)
    assert salient > max(1.5 * elsewhere, 2)


def _score(model: torch.nn.Module, chunk: np.ndarray, gain: torch.Tensor | None = None) -> float:
    """The chunk's score, with the output of each bank multiplied by `gain`, (F, T) stretched to its length.

    A second bank's filters lie in the lower half of the first one's range.
    """
    banks = [module for module in model.modules() if isinstance(module, SincBank | LinearFilterBank)]

    def scale(module, inputs, output):
        if gain is None:
            return output
        own_gain = gain if module is banks[0] else gain[: len(gain) // 2]
        stretched = F.interpolate(own_gain[None, None], output.shape[1:])[0]
        return output + stretched.log10() if isinstance(module, LinearFilterBank) else output * stretched

    hooks = [bank.register_forward_hook(scale) for bank in banks]
    with torch.inference_mode():
        _, logits = model(torch.from_numpy(chunk)[None])
    for hook in hooks:
        hook.remove()
    return logits[0, 1].item()


def test_the_sentence_says_where_half_of_the_evidence_lies():
    weight = np.zeros((70, 400), np.float32)
    frequencies = np.linspace(50, 7950, 70)
    found = Saliency(120.0, 4.0, frequencies, weight)
    nothing = "In the lowest-scoring chunk (2:00.0–2:04.0) nothing speaks for spoof."
    assert saliency_sentence(found, 300.0) == nothing
    assert "chunk (2:42:00.0–2:42:04.0) nothing" in saliency_sentence(found._replace(start=9720.0), 18000.0)
    weight[10:14, 100:150] = 1  # 1.2–1.6 kHz for half a second
    weight[40, 300:340] = 0.5
    told = saliency_sentence(found, 300.0)
    chunk = "Half of what speaks for spoof in the lowest-scoring chunk"
    assert told == f"{chunk} (2:00.0–2:04.0) lies at 2:01.0–2:01.3, half of it at 1.1–1.5 kHz."
    weight[:, 200:] = 1  # beyond the end of the recording, which was repeated
    assert saliency_sentence(found, 122.0).startswith(f"{chunk} (2:00.0–2:02.0) lies at 2:01.0–2:01.")


def test_a_bank_without_buffers_has_a_map():
    """SE-ResNet's log spectrum."""
    torch.manual_seed(0)
    model = build_model({"architecture": "SE_ResNet", "nb_samp": 8000, "channels": [8, 8]}).eval()
    assert saliency(model, NOISE).weight.max() == 1
