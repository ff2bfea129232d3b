"""Models: parity with the authors' code (weights, outputs, one training step), LFCC against scipy, configurations.

The fixtures are described in ../shared/fixtures/README.md.
"""

import copy
import json

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY_MODEL

from common.errors import UserError
from config import load_config
from models import architectures, build_model
from models.layers import GraphPool, ResidualBlock, ResidualBlock1d, SincBank
from models.LFCC_LCNN import LFCC, MaxFeatureMap
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from utils import load_model

OFFICIAL = ["AASIST", "AASIST-L"]  # released with weights
SIZES = {
    "AASIST": 297_866,
    "AASIST-L": 85_306,
    "RawNet2_baseline": 17_621_410,
    "RawGATST_baseline": 437_034,
    "LFCC_LCNN": 270_338,
    "LCNN-mixed": 263_396,
    "SE_ResNet": 946_182,
}
TINY = {
    "AASIST": TINY_MODEL,
    "RawNet2Spoof": {
        "architecture": "RawNet2Spoof",
        "nb_samp": 8000,
        "first_conv": 64,
        "filts": [8, [8, 8], [8, 12], [12, 12]],
        "nb_fc_node": 10,
        "gru_node": 16,
        "nb_gru_layer": 2,
    },
    "RawNetGatSpoofST": {
        "architecture": "RawNetGatSpoofST",
        "nb_samp": 8000,
        "first_conv": 64,
        "filts": [24, [1, 4], [4, 4], [4, 8], [8, 8]],
    },
    "LFCC_LCNN": {"architecture": "LFCC_LCNN", "nb_samp": 8000, "channels": [4, 6, 8, 4]},
    "Whisper_Stats": {
        "architecture": "Whisper_Stats",
        "nb_samp": 8000,
        "layers": [1, 2],
        "hidden": 16,
        "heads": 2,
        "mels": 20,
        "freeze": False,
    },
    "SE_ResNet": {"architecture": "SE_ResNet", "nb_samp": 8000, "channels": [8, 16], "blocks": 1, "hidden": 8},
    "Ensemble": {
        "architecture": "Ensemble",
        "nb_samp": 8000,
        "members": [
            {"architecture": "LFCC_LCNN", "channels": [4, 6, 8, 4]},
            {"architecture": "LFCC_LCNN", "channels": [4, 6, 8, 4], "nb_filters": 16, "deltas": "channels"},
        ],
    },
}
DELTAS = {"deltas": "channels", "nb_filters": 20}
BASELINES = {"RawNet2Spoof": "RawNet2_baseline", "RawNetGatSpoofST": "RawGATST_baseline"}


def tiny(architecture: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(TINY[architecture] | changes)


def speechlike(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """(batch, samples) of noise in bursts."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(batch, samples))).float()
    return 0.1 * noise * torch.sin(torch.arange(samples) / 2000).abs()


def model_of(name: str) -> torch.nn.Module:
    return build_model(load_config(ROOT / "config" / f"{name}.conf").model_config)


def official(name: str, shared) -> tuple[torch.nn.Module, dict[str, np.ndarray]]:
    model = model_of(name)
    weights = torch.load(shared / "fixtures" / "weights" / f"{name}.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(weights, strict=True)
    reference = np.load(shared / "fixtures" / "logits" / f"{name.lower().replace('-', '_')}.npz")
    return model, dict(reference)


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    assert sum(p.numel() for p in model_of(name).parameters()) == SIZES[name]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_give_official_outputs(name, shared):
    model, reference = official(name, shared)
    with torch.inference_mode():
        hidden, logits = model.eval()(torch.from_numpy(reference["waveforms"]))
    np.testing.assert_allclose(hidden, reference["last_hidden"], atol=1e-4)
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


@pytest.mark.parametrize("architecture", BASELINES)
def test_the_authors_baselines_give_their_outputs(architecture, shared):
    reference = np.load(shared / "fixtures" / "logits" / f"{architecture.lower()}.npz")
    model = build_model(json.loads(str(reference["model_config"])))
    weights = shared / "fixtures" / "weights" / f"{architecture}_random.pth"
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=True)
    with torch.inference_mode():
        hidden, logits = model.eval()(torch.from_numpy(reference["waveforms"]))
    np.testing.assert_allclose(hidden, reference["last_hidden"], atol=1e-4)
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


@pytest.mark.parametrize("conf", BASELINES.values())
def test_bare_weights_of_the_baselines_are_recognised(conf, tmp_path):
    torch.save(model_of(conf).state_dict(), tmp_path / "bare.pth")
    _, checkpoint = load_model(tmp_path / "bare.pth")
    assert checkpoint["config"]["model_config"] == load_config(ROOT / "config" / f"{conf}.conf").model_config


@pytest.mark.parametrize("name", OFFICIAL)
def test_one_training_step_is_the_official_one(name, shared):
    model, reference = official(name, shared)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    x, y = torch.from_numpy(reference["waveforms"]), torch.from_numpy(reference["labels"])
    _, logits = model(x)
    loss = F.cross_entropy(logits, y, weight=torch.tensor([0.1, 0.9]))
    loss.backward()
    np.testing.assert_allclose(logits.detach(), reference["step_train_logits"], atol=1e-4)
    assert loss.item() == pytest.approx(float(reference["step_loss"]), abs=1e-4)

    norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    assert norms.keys() == set(reference["step_grad_names"])
    for parameter, norm in zip(reference["step_grad_names"], reference["step_grad_norms"], strict=True):
        # A bias just before a batch norm has no effect; its gradient is rounding only. All norms below 3e-4 are such.
        assert norms[parameter] == pytest.approx(norm, rel=1e-3, abs=3e-4), parameter

    torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4).step()
    with torch.inference_mode():
        _, after = model.eval()(x)
    # Adam turns the sign of each of these roundings into a full step, so the third digit is arbitrary. In AASIST's
    # first row two temporal nodes at the pool's limit are so close (3e-4) that rounding chooses between them: 0.08.
    tolerance = np.array([[0.1 if name == "AASIST" else 0.01], [0.01], [0.01], [0.01]])
    assert (np.abs(after.numpy() - reference["step_after_logits"]) < tolerance).all()


def test_filter_bank_is_fixed_and_not_saved():
    model = build_model(TINY_MODEL)
    assert not [name for name in model.state_dict() if "conv_time" in name]
    assert model.conv_time.band_pass.shape == (70, 1, 129)
    assert not model.conv_time.band_pass.requires_grad


def test_filters_pass_their_band():
    bank = SincBank(70, 128).band_pass[:, 0]
    response = torch.fft.rfft(bank, 16_000).abs()  # 1 Hz bins
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 71)
    edges = 700 * (10 ** (mel / 2595) - 1)
    for i in range(40, 70):  # 129 taps resolve these bands
        assert edges[i] < response[i].argmax() < edges[i + 1]
        assert response[i, : round(edges[i] - 250)].max() < 0.1 * response[i].max()


@pytest.mark.parametrize("architecture", TINY)
def test_frequency_masking_acts_in_training_only(architecture):
    model, x = tiny(architecture), speechlike(2, 8000)
    with torch.inference_mode():
        model.eval()
        assert torch.equal(model(x, freq_aug=True)[1], model(x)[1])
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        assert torch.equal(model(x)[1], model(x)[1])
        assert len({model(x, freq_aug=True)[1][0, 0].item() for _ in range(10)}) > 5


def test_frequency_masking_silences_filters():
    model, x = tiny("AASIST"), torch.randn(2, 8000)
    masked = torch.stack([model.conv_time(x, mask=True) for _ in range(50)])  # (50, B, C, T)
    silent = (masked == 0).all(dim=3).sum(dim=2)  # (50, B) filters
    assert torch.equal(silent[:, 0], silent[:, 1])  # the same mask for the whole batch
    assert silent.max() <= 19
    assert len(silent[:, 0].unique()) > 5
    assert not (model.conv_time(x) == 0).all(dim=2).any()


def test_pool_keeps_the_best_nodes_in_order():
    pool = GraphPool(0.5, 1).eval()
    with torch.no_grad():
        pool.proj.weight.fill_(1.0)
        pool.proj.bias.fill_(0.0)
        h = torch.tensor([[[1.0], [5.0], [3.0], [-2.0], [4.0]]])
        np.testing.assert_allclose(pool(h)[0, :, 0], [v / (1 + np.exp(-v)) for v in (5.0, 4.0)], rtol=1e-6)
        assert GraphPool(0.1, 1, n_min=2)(h).shape == (1, 2, 1)


@pytest.mark.parametrize(
    ("architecture", "first_values"),
    [
        ("AASIST", {
            "pos_S": (-0.48045, 0.68209),
            "HtrgGAT_layer_ST11.proj_type1.weight": (0.16853, -0.30281),
            "pool_hT1.proj.weight": (0.06027, 0.07501),
            "HtrgGAT_layer_ST21.att_weightM": (0.80992, 0.27427),
            "pool_hT2.proj.weight": (-0.18270, -0.20662),
            "out_layer.bias": (-0.11699, -0.04471),
        }),
        ("RawNetGatSpoofST", {
            "encoder_T.0.0.conv1.weight": (-0.00306, 0.21900),
            "proj_T.bias": (0.13356, 0.24423),
            "encoder_S.0.0.conv1.weight": (0.13242, 0.35674),
            "out_layer.bias": (-0.21849, 0.21844),
        }),
    ],
)  # fmt: skip
def test_a_seed_gives_the_weights_that_it_always_gave(architecture, first_values):
    """Layers are made in a fixed order, so runs can be repeated."""
    state = tiny(architecture).state_dict()
    for name, values in first_values.items():
        assert state[name].flatten()[:2].tolist() == pytest.approx(values, abs=1e-4), name


@pytest.mark.parametrize("architecture", TINY)
def test_only_unused_batch_norms_get_no_gradient(architecture):
    model = tiny(architecture)
    model(speechlike(2, 8000))[1][:, 0].sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {name for name, p in model.named_parameters() if not p.requires_grad}
    blocks = {"RawNet2Spoof": 5, "RawNetGatSpoofST": 10, "AASIST": 5, "Whisper_Stats": 1}.get(architecture, 0)
    assert len(without) == 2 * blocks and all(".bn1." in name or "standardise" in name for name in without)


def test_a_small_bank_is_never_masked_beyond_its_end():
    bank = SincBank(filters=3, taps=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        silent = {int((bank._masked() == 0).all(dim=(1, 2)).sum()) for _ in range(50)}
    assert silent == {0, 1, 2}


def out_of_place(block: ResidualBlock | ResidualBlock1d, x: torch.Tensor) -> torch.Tensor:
    """The block's forward pass as the authors write it, without in-place operations."""
    identity = x if block.same_channels else block.conv_downsample(x)
    if isinstance(block, ResidualBlock1d):
        return F.max_pool1d(block.conv2(F.leaky_relu(block.bn2(block.conv1(x)), 0.3)) + identity, 3)
    return F.max_pool2d(block.conv2(F.selu(block.bn2(block.conv1(x)))) + identity, (1, 3))


@pytest.mark.parametrize("kind", [ResidualBlock, ResidualBlock1d])
@pytest.mark.parametrize("channels", [(3, 3), (2, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_in_place_operations_keep_gradients(kind, channels, training):
    """Gradients equal those without in-place operations, those with recomputation, and finite differences."""
    torch.manual_seed(0)
    block = kind(*channels).double().train(training)
    shape = (2, channels[0], 3, 9) if kind is ResidualBlock else (2, channels[0], 18)
    x = torch.randn(*shape, dtype=torch.double, requires_grad=True)
    results = []
    for recompute, forward in ((False, block), (True, block), (False, lambda x: out_of_place(block, x))):
        block.recompute = recompute
        y = forward(x)
        gradient = torch.autograd.grad(y.square().sum(), [x, *(p for p in block.parameters() if p.requires_grad)])
        results.append([y, *gradient])
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(block, x)


# ------------------------------------------------------------------------------------------------ all architectures


@pytest.mark.parametrize("architecture", TINY)
def test_outputs_of_every_architecture(architecture):
    """Shapes; under bfloat16 nearly the same values, still in float32, since graphs and recurrent layers use that."""
    model, x = tiny(architecture).eval(), speechlike(3, 8000)
    with torch.inference_mode():
        hidden, logits = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            near = model(x)[1]
        one = model(x[:1])[1]
    assert model.nb_samp == 8000 and hidden.shape[0] == 3 and hidden.dim() == 2 and logits.shape == (3, 2)
    assert near.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(near, logits, rtol=0.1, atol=0.1)
    torch.testing.assert_close(one, logits[:1], rtol=1e-4, atol=1e-5)
    assert logits[0].sub(logits[1]).abs().max() > 1e-6  # they depend on the input


@pytest.mark.parametrize("architecture", TINY)
def test_cosines_of_every_architecture(architecture):
    linear, cosine = tiny(architecture), tiny(architecture, output="cosine").eval()
    with torch.inference_mode():
        hidden, logits = cosine(speechlike(3, 8000))
    if architecture == "Ensemble":
        expected = torch.stack([member(speechlike(3, 8000))[1] for member in cosine.members]).mean(dim=0)
    else:
        output = cosine.fc2_gru if architecture == "RawNet2Spoof" else cosine.out_layer
        expected = F.cosine_similarity(hidden[:, None], output.weight[None], dim=2)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert cosine.state_dict().keys() < linear.state_dict().keys()
    with pytest.raises(UserError, match=r"model_config.output.*linear, cosine"):
        tiny(architecture, output="angular")


@pytest.mark.parametrize(
    "architecture", ["AASIST", "RawNet2Spoof", "LFCC_LCNN", "Whisper_Stats", "SE_ResNet", "Ensemble"]
)
def test_inputs_of_other_lengths(architecture):
    model = tiny(architecture).eval()
    with torch.inference_mode():
        for samples in (2400, 7001, 16_000):
            assert model(speechlike(2, samples))[1].isfinite().all()


@pytest.mark.parametrize("nb_samp, nodes", [(4438, 2), (6624, 2), (6625, 2), (16_000, 5), (64_600, 23)])
def test_rawgat_st_is_made_for_its_chunks(nb_samp, nodes):
    """Its projection takes the 81 % that the pool keeps of N_T = ⌊(samples - 64) / 3⁷⌋ temporal nodes, at least 2."""
    model = tiny("RawNetGatSpoofST", nb_samp=nb_samp).eval()
    assert model.proj_S.weight.shape == (12, nodes)
    with torch.inference_mode():
        assert model(speechlike(1, nb_samp))[0].shape == (1, 7)


@pytest.mark.parametrize(
    "architecture", ["RawNet2Spoof", "RawNetGatSpoofST", "LFCC_LCNN", "Whisper_Stats", "SE_ResNet", "Ensemble"]
)
def test_every_architecture_exports(architecture, tmp_path):
    config = TINY[architecture]
    assert export_onnx(tiny(architecture).eval(), ModelCard("tiny", "0" * 64, config), tmp_path / "tiny.onnx") < 1e-4


def test_rawnet2_gives_log_probabilities():
    with torch.inference_mode():
        logits = tiny("RawNet2Spoof").eval()(speechlike(3, 8000))[1]
    torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(3))
    torch.testing.assert_close(F.log_softmax(logits, dim=1), logits)  # so their cross-entropy is that of a softmax


def test_rawnet2_accepts_filts_as_the_official_code_overwrites_them():
    before, after = (tiny("RawNet2Spoof", filts=[8, [8, 8], pair, [12, 12]]) for pair in ([8, 12], [12, 12]))
    assert all(map(torch.equal, before.state_dict().values(), after.state_dict().values()))


# -------------------------------------------------------------------------------------------------------------- LFCC


def lfcc_by_scipy(x: np.ndarray, filters: int, highest: int = 8000) -> np.ndarray:
    """(T,) → (L, 3 · filters) with scipy's transforms, in double precision."""
    window = np.zeros(512)
    window[96:416] = scipy.signal.get_window("hamming", 320)
    emphasised = scipy.signal.lfilter([1, -0.97], [1], x)
    hertz, _, spectrum = scipy.signal.stft(
        emphasised, 16_000, window, nperseg=512, noverlap=352, boundary="zeros", padded=False
    )
    power = np.abs(spectrum * window.sum()) ** 2  # (257, L)
    edges = np.linspace(0, highest, filters + 2)
    bank = np.stack([np.interp(hertz, edges[i : i + 3], [0, 1, 0]) for i in range(filters)])
    cepstra = scipy.fft.dct(np.log10(bank @ power + np.finfo(np.float32).eps), axis=0, norm="ortho")
    cepstra[0] = np.log10(power[hertz <= highest].sum(axis=0) / 512 + np.finfo(np.float32).eps)
    features = [cepstra]
    for _ in range(2):
        longer = np.pad(features[-1], ((0, 0), (1, 1)), mode="edge")
        features.append(longer[:, 2:] - longer[:, :-2])
    return np.concatenate(features).T


@pytest.mark.parametrize("filters, samples", [(20, 64_600), (20, 2400), (70, 8000), (20, 7999)])
def test_lfcc_is_scipys(filters, samples):
    x = speechlike(2, samples)
    found = LFCC(filters)(x)
    assert found.shape == (2, 1 + samples // 160, 3 * filters)
    for row, features in zip(x, found, strict=True):
        np.testing.assert_allclose(features, lfcc_by_scipy(row.double().numpy(), filters), atol=2e-3)


@pytest.mark.parametrize("highest", [3400, 4000])
def test_lfcc_of_low_frequencies_is_scipys(highest):
    x = speechlike(1, 8000)
    expected = lfcc_by_scipy(x[0].double().numpy(), 20, highest)
    np.testing.assert_allclose(LFCC(20, highest)(x)[0], expected, atol=2e-3)


def test_frequencies_above_the_highest_are_ignored():
    model = tiny("LFCC_LCNN", highest=4000).eval()
    noise = np.random.default_rng(0).normal(0, 0.1, 8000)
    speech = scipy.signal.sosfilt(scipy.signal.butter(20, 4500, "low", fs=16_000, output="sos"), noise)
    high = scipy.signal.sosfilt(scipy.signal.butter(20, 4500, "high", fs=16_000, output="sos"), noise)
    with torch.inference_mode():
        without, with_it, full_band = (
            net(torch.from_numpy(x).float()[None])[1]
            for net, x in ((model, speech), (model, speech + high), (tiny("LFCC_LCNN").eval(), speech + high))
        )
    assert (with_it - without).abs().max() < 0.01 * (full_band - without).abs().max()


def test_lfcc_of_speech_is_scipys(shared):
    x = np.load(shared / "fixtures" / "logits" / "aasist.npz")["waveforms"][:1]
    with torch.autocast("cpu", torch.bfloat16):  # the front end computes in fp32 all the same
        found = LFCC(20)(torch.from_numpy(x))[0]
    np.testing.assert_allclose(found, lfcc_by_scipy(x[0].astype(float), 20), atol=2e-3)


def test_lfcc_of_silence_is_finite():
    assert LFCC(20)(torch.zeros(1, 2400)).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_max_feature_map_is_torchs_maximum(dtype, layout):
    """Its gradient too, except where both halves are equal: torch splits it, and we give it to the first."""
    a, b, gradient = torch.randn(3, 2, 4, 20, 11).to(dtype)
    a[:, 0] = b[:, 0]
    x = torch.cat([a, b], dim=1).to(memory_format=layout).requires_grad_()
    (found,) = torch.autograd.grad(MaxFeatureMap()(x), x, gradient)
    y = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad(MaxFeatureMap().eval()(y), y, gradient)
    assert torch.equal(MaxFeatureMap()(x), torch.maximum(a, b))
    distinct = (a != b).repeat(1, 2, 1, 1)
    assert torch.equal(found[distinct], expected[distinct])
    assert torch.equal(found[:, 0], gradient[:, 0]) and not found[:, 4].any()


def test_deltas_as_channels_are_standardised():
    """In training each feature has mean 0 and variance 1 over the batch's frames."""
    model, x, seen = tiny("LFCC_LCNN", **DELTAS), speechlike(3, 8000), []
    model.lcnn.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model(x)
    features = model.lfcc(x)  # (3, 51, 60)
    expected = (features - features.mean((0, 1))) / (features.var((0, 1), correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(seen[0], torch.stack(expected.chunk(3, dim=2), dim=1), rtol=1e-3, atol=1e-4)


def test_lfcc_masking_makes_neighbours_equal():
    lfcc, x = LFCC(20), speechlike(1, 8000)

    def equal_pairs(features: torch.Tensor) -> int:
        """Adjacent filters with the same log energy in every frame."""
        cepstra = features[0, :, :20].numpy().copy()
        cepstra[:, 0] = 0  # the frame's energy has replaced the mean over filters
        return int((np.abs(np.diff(scipy.fft.idct(cepstra, norm="ortho"), axis=1)).max(axis=0) < 1e-4).sum())

    assert equal_pairs(lfcc(x)) == 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert {equal_pairs(lfcc(x, mask=True)) for _ in range(50)} == {0, 1, 2, 3, 4}  # up to 5 filters


# ---------------------------------------------------------------------------------------------------------- ensemble


def test_an_ensemble_scores_the_mean_of_its_members():
    model, x = tiny("Ensemble").eval(), speechlike(3, 8000)
    with torch.inference_mode():
        (hidden, logits), parts = model(x), [member(x) for member in model.members]
    torch.testing.assert_close(logits, (parts[0][1] + parts[1][1]) / 2)
    torch.testing.assert_close(hidden, torch.cat([part for part, _ in parts], dim=1))


def test_members_learn_from_crops_of_their_own():
    """Crops go to the members in turn. Gradients and batch norms are those of each member alone with its crops."""
    model, x, y = tiny("Ensemble"), speechlike(5, 8000), torch.tensor([0, 1, 1, 0, 1])
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    alone = copy.deepcopy(model)
    hidden, logits = model(x)
    F.cross_entropy(logits, y, reduction="sum").backward()
    for first, member in enumerate(alone.members):
        own_hidden, own = member(x[first::2])
        F.cross_entropy(own, y[first::2], reduction="sum").backward()
        torch.testing.assert_close(logits[first::2], own)
        torch.testing.assert_close(hidden[first::2].abs().sum(), own_hidden.abs().sum())
    for (name, found), expected in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)
    for found, expected in zip(model.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(found, expected)


# ------------------------------------------------------------------------------------------------- wrong model_config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "Transformer"}, f"one of {', '.join(architectures())}"),
        ({"gat_dim": [8, 8]}, "unknown key.*'model_config.gat_dims'"),
        ({"filts": [70, [1, 8], [8, 8], [9, 8], [8, 8]]}, "model_config.filts"),
        ({"filts": [70]}, "model_config.filts"),
        ({"pool_ratios": [0.5, 1.5, 0.5]}, "model_config.pool_ratios"),
        ({"temperatures": [2.0]}, "model_config.temperatures"),
        ({"nb_samp": 1000}, "model_config.nb_samp"),
        ({"gat_dims": [8]}, "a list of 2"),
    ],
)
def test_wrong_model_configs_are_named(change, words):
    with pytest.raises(UserError, match=words):
        build_model(TINY_MODEL | change)


@pytest.mark.parametrize(
    ("architecture", "change", "words"),
    [
        ("RawNet2Spoof", {"filts": [8, [8, 8], [8, 12]]}, "model_config.filts"),
        ("RawNet2Spoof", {"filts": [8, [9, 8], [8, 12], [12, 12]]}, "model_config.filts"),
        ("RawNet2Spoof", {"filts": [8, [8, 8], [9, 12], [12, 12]]}, "model_config.filts"),
        ("RawNet2Spoof", {"filts": [8, [8, 8], [8, 12], [12, 14]]}, "model_config.filts"),
        ("RawNet2Spoof", {"filts": [8, [8, "8"], [8, 12], [12, 12]]}, "model_config.filts"),
        ("RawNet2Spoof", {"in_channels": 2}, "model_config.in_channels.*1 "),
        ("RawNet2Spoof", {"nb_classes": 3}, "model_config.nb_classes.*2 "),
        ("RawNet2Spoof", {"blocks": [2, 0]}, "model_config.blocks"),
        ("RawNet2Spoof", {"blocks": [3, 5]}, "model_config.nb_samp.*19747 or more"),
        ("RawNet2Spoof", {"nb_gru_layer": 0}, "model_config.nb_gru_layer"),
        ("RawNet2Spoof", {"gru_nodes": 4}, "unknown key.*'model_config.gru_node'"),
        ("RawNetGatSpoofST", {"filts": [5, [1, 4], [4, 4], [4, 8], [8, 8]]}, "model_config.filts.*6 or more"),
        ("RawNetGatSpoofST", {"filts": [24, [1, 4], [4, 4], [5, 8], [8, 8]]}, "model_config.filts"),
        ("RawNetGatSpoofST", {"nb_samp": 4437}, "model_config.nb_samp.*4438 or more"),
        ("RawNetGatSpoofST", {"first_conv": 0}, "model_config.first_conv"),
        ("LFCC_LCNN", {"channels": [4, 4, 4]}, "a list of 4"),
        ("LFCC_LCNN", {"channels": [4, 4, 4, 3]}, "model_config.channels.*even"),
        ("LFCC_LCNN", {"nb_filters": 5}, "model_config.nb_filters"),
        ("LFCC_LCNN", {"nb_filters": 129}, "model_config.nb_filters"),
        ("LFCC_LCNN", DELTAS | {"nb_filters": 15}, "model_config.nb_filters.*16 … 128"),
        ("LFCC_LCNN", {"deltas": "planes"}, "model_config.deltas.*features, channels"),
        ("LFCC_LCNN", {"highest": 8001}, "model_config.highest.*8000 Hz"),
        ("LFCC_LCNN", {"highest": 0}, "model_config.highest.*8000 Hz"),
        ("LFCC_LCNN", {"highest": 1000}, "model_config.nb_filters.*6 … 16"),
        ("SE_ResNet", {"channels": []}, "model_config.channels.*up to six"),
        ("SE_ResNet", {"channels": [4]}, "model_config.channels.*8 … 1024"),
        ("SE_ResNet", {"blocks": 0}, "model_config.blocks.*1 … 16"),
        ("SE_ResNet", {"hidden": 0}, "model_config.hidden"),
        ("SE_ResNet", {"dropout": 1.0}, "model_config.dropout"),
        ("SE_ResNet", {"nb_samp": 1599}, "model_config.nb_samp.*1600 or more"),
        ("Ensemble", {"members": []}, "model_config.members.*2 … 100"),
        ("Ensemble", {"members": TINY["Ensemble"]["members"][:1]}, "model_config.members.*2 … 100"),
        (
            "Ensemble",
            {"members": [{"architecture": "LFCC_LCNN", "nb_samp": 8000}] * 2},
            "model_config.members.*nb_samp",
        ),
        ("Ensemble", {"members": [TINY["Ensemble"]] * 2}, "model_config.members.*members, nb_samp"),
        ("Ensemble", {"members": [{"architecture": "LSTM"}] * 2}, "one of AASIST"),
        ("Ensemble", {"members": ["AASIST"] * 2}, "model_config.members"),
        ("LFCC_LCNN", {"nb_samp": 2399}, "model_config.nb_samp.*2400 or more"),
    ],
)
def test_wrong_configs_of_the_other_architectures_are_named(architecture, change, words):
    with pytest.raises(UserError, match=words):
        tiny(architecture, **change)
