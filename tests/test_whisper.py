"""Whisper-Stats: parity with transformers' encoder and feature extractor, published weights, statistics, levels."""

import re
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.errors import UserError
from config import Config, to_dict
from models import build_model
from models.Whisper_Stats import MAX_FRAMES, LogMel, WhisperEncoder
from models.whisper_weights import encoder_weights, read_ctranslate2
from training.model import load_initial
from utils import save_checkpoint

SIZE = {"layers": 3, "hidden": 32, "heads": 4, "mels": 80}


def encoder(**changes) -> WhisperEncoder:
    torch.manual_seed(0)
    return WhisperEncoder(**SIZE | changes).eval()


@pytest.fixture(scope="module")
def theirs():
    """transformers' encoder with random weights, and ours with the same."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder as Encoder

    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        d_model=SIZE["hidden"], encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=128, num_mel_bins=80
    )
    return Encoder(config).eval()


def test_the_encoder_is_that_of_transformers(theirs):
    ours = encoder()
    ours.load_state_dict(encoder_weights({f"model.encoder.{k}": v for k, v in theirs.state_dict().items()}, 3))
    mel = torch.randn(2, 80, 2 * MAX_FRAMES, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = theirs(mel, output_hidden_states=True)
        layers = ours.encode(mel)
        for layer, theirs_layer in zip(layers[:-1], expected.hidden_states[1:-1], strict=True):
            torch.testing.assert_close(layer, theirs_layer, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs.layer_norm(layers[-1]), expected.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.positions, theirs.embed_positions.weight, rtol=0, atol=0)


def test_the_spectrogram_is_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    x = 0.1 * np.random.default_rng(0).standard_normal(480_000).astype(np.float32)
    x[200_000:] *= 1e-6  # the floor, 8 below the maximum
    expected = transformers.WhisperFeatureExtractor()(x, sampling_rate=16_000, return_tensors="np").input_features
    np.testing.assert_allclose(LogMel(80)(torch.from_numpy(x)[None]), expected, atol=1e-5)


def test_every_input_gives_a_finite_spectrogram():
    silence, shortest = torch.zeros(1, 8000), torch.full((1, 400), 0.5)
    assert LogMel(80)(silence).unique().tolist() == [pytest.approx(-1.5)]
    assert LogMel(80)(shortest).shape == (1, 80, 2) and LogMel(80)(shortest).isfinite().all()


def openai_name(name: str) -> str:
    """The name that OpenAI's checkpoints use."""
    replaced = {
        r"^layers\.": "blocks.",
        r"self_attn_layer_norm": "attn_ln", r"final_layer_norm": "mlp_ln",
        r"self_attn\.q_proj": "attn.query", r"self_attn\.k_proj": "attn.key", r"self_attn\.v_proj": "attn.value",
        r"self_attn\.out_proj": "attn.out", r"fc1": "mlp.0", r"fc2": "mlp.2",
    }  # fmt: skip
    for pattern, replacement in replaced.items():
        name = re.sub(pattern, replacement, name)
    return f"encoder.{name}"


def test_openais_names_are_read():
    state = encoder().state_dict()
    published = {openai_name(name): tensor for name, tensor in state.items()}
    published |= {"encoder.positional_embedding": torch.zeros(1500, 32), "decoder.ln.weight": torch.zeros(32)}
    published |= {"encoder.ln_post.weight": torch.zeros(32), "encoder.ln_post.bias": torch.zeros(32)}
    read = encoder_weights(published, 3)
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)
    lower = encoder_weights(published, 2)
    assert lower.keys() == encoder(layers=2).state_dict().keys()
    with pytest.raises(UserError, match=r"no encoder of Whisper.*4 layers.*found 3 layers"):
        encoder_weights(published, 4)


def model_bin(state: dict[str, torch.Tensor], half: bool) -> bytes:
    """CTranslate2's model.bin with these weights of the encoder."""
    names = {
        r"^layers\.(\d+)\.": r"layer_\1/", r"self_attn_layer_norm\.": "self_attention/layer_norm.",
        r"final_layer_norm\.": "ffn/layer_norm.", r"self_attn\.out_proj": "self_attention/linear_1",
        r"fc1": "ffn/linear_0", r"fc2": "ffn/linear_1",
        r"norm\.weight": "norm/gamma", r"norm\.bias": "norm/beta", r"\.": "/",
    }  # fmt: skip
    tensors = {}
    for name, tensor in state.items():
        if found := re.fullmatch(r"layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", name):
            parts = [state.get(name.replace("q_proj", f"{part}_proj"), torch.zeros_like(tensor)) for part in "qkv"]
            tensors[f"encoder/layer_{found[1]}/self_attention/linear_0/{found[2]}"] = torch.cat(parts)
        elif not re.search(r"[kv]_proj", name):
            for pattern, replacement in names.items():
                name = re.sub(pattern, replacement, name)
            tensors[f"encoder/{name}"] = tensor
    text = lambda value: struct.pack("<H", len(value) + 1) + value.encode() + b"\0"  # noqa: E731
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        values = tensor.numpy().astype(np.float16 if half else np.float32)
        data += text(name) + struct.pack(f"<B{values.ndim}I", values.ndim, *values.shape)
        data += struct.pack("<BI", 4 if half else 0, values.nbytes) + values.tobytes()
    return data


@pytest.mark.parametrize("half", [False, True])
def test_ctranslate2s_file_is_read(tmp_path, half):
    state = encoder().state_dict()
    (tmp_path / "model.bin").write_bytes(model_bin(state, half))
    read = encoder_weights(read_ctranslate2(tmp_path / "model.bin"), 3)
    assert read.keys() == state.keys()
    for name in state:
        torch.testing.assert_close(read[name], state[name], rtol=1e-3 if half else 0, atol=1e-4 if half else 0)


@pytest.mark.parametrize("data", [b"", b"PK\3\4" * 9, b"\6\0\0\0\4\0abc\0\1\0\0\0\xff\xff\xff\xff" + b"\1" * 99])
def test_another_file_is_no_model_bin(tmp_path, data):
    (tmp_path / "model.bin").write_bytes(data)
    with pytest.raises(UserError, match=r"is no model.bin of CTranslate2"):
        read_ctranslate2(tmp_path / "model.bin")


def test_a_louder_copy_has_the_same_score():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "layers": [1]}
    model, x = build_model(config).eval(), 0.01 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model(10 * x)[1], model(x)[1], rtol=1e-4, atol=1e-4)
        assert model(torch.zeros(1, 8000))[1].isfinite().all()


def test_pooled_are_a_layer_s_outputs_and_another_one_s_changes():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4}
    x = 0.05 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    model = build_model(config | {"layers": [2], "change_layers": [1]}).eval()
    with torch.inference_mode():
        first, second = model.encoder(x * (0.05 / x.square().mean().sqrt()))
        found = model.describe(x)[:, : 4 * 32]
    changes = first.diff(dim=1).abs()
    moments = [f(y) for y in (second, changes) for f in (lambda y: y.mean(1), lambda y: y.std(1, correction=0))]
    torch.testing.assert_close(found, torch.cat(moments, dim=1), rtol=1e-3, atol=1e-3)


def test_one_odd_statistic_cannot_decide_a_score():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "limit": 1.5}
    model = build_model(config).eval()
    features = torch.zeros(2, model.standardise.num_features)
    features[0, 3], features[1, 3] = 1.5, 1e6
    scores = model.out_layer(model.scale(features))
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)


def test_the_gate_weighs_the_experts():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "experts": 3}
    layer = build_model(config).out_layer
    x = torch.randn(5, layer.gate.in_features, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        gate = layer.gate(x).softmax(dim=1)
        by_hand = sum(gate[:, [i]] * (x @ layer.experts.weight[2 * i : 2 * i + 2].T) for i in range(3))
        by_hand += gate @ layer.experts.bias.view(3, 2)
        torch.testing.assert_close(layer(x), by_hand, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=r"model_config\.output.*several experts"):
        build_model(config | {"output": "cosine"})


NETWORK = {"architecture": "SE_ResNet", "nb_samp": 4000, "channels": [8, 16], "blocks": 1, "hidden": 8}


def test_a_networks_log_odds_are_the_last_feature():
    """Of what it hears: the beginning of the chunk. Nothing else of the model depends on it."""
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "experts": 2}
    model, x = build_model(config | {"network": NETWORK}).eval(), torch.randn(3, 8000)
    without = build_model(config).eval()
    without.encoder.load_state_dict(model.encoder.state_dict())
    with torch.inference_mode():
        features, logits = model.describe(x), model.network(x[:, :4000])[1]
        torch.testing.assert_close(features[:, -1], logits[:, 1] - logits[:, 0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(features[:, :-1], without.describe(x))
        before = model(x)[1]
        model.out_layer.experts.weight[1::2, -1] += 2  # of both experts' bona fide logit
        torch.testing.assert_close(model(x)[1][:, 1], before[:, 1] + 2 * model.scale(features)[:, -1])


def test_a_frozen_network_stays_as_it_is():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "network": NETWORK}
    for freeze in (True, False):
        model = build_model(config | {"freeze": freeze}).train()
        before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        model(torch.randn(2, 8000))[1].sum().backward()
        same = all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
        trained = any(p.grad is not None for p in model.network.parameters())
        assert same == freeze and trained != freeze


@pytest.mark.parametrize(
    "network, words",
    [
        ({"architecture": "Whisper_Stats", "network": NETWORK}, "model_config.network.*no output, encoder, members"),
        ({"architecture": "LSTM"}, "unknown model_config.architecture"),
        ("SE_ResNet", "model_config.network"),
    ],
)
def test_wrong_networks_are_named(network, words):
    with pytest.raises(UserError, match=words):
        build_model({"architecture": "Whisper_Stats", "network": network})


@pytest.mark.parametrize("layers", [[], [3, 1], [0]])
def test_layers_that_cannot_be_pooled(layers):
    with pytest.raises(UserError, match=r"model_config\.layers"):
        build_model({"architecture": "Whisper_Stats", "layers": layers})


def test_a_frozen_encoder_is_not_trained():
    config = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "layers": [1]}
    for freeze in (True, False):
        model = build_model(config | {"freeze": freeze})
        model(torch.randn(2, 8000))[1].sum().backward()
        trained = {name for name, p in model.named_parameters() if p.grad is not None}
        assert ("encoder.conv1.weight" in trained) != freeze and "out_layer.weight" in trained
        assert bool(model.encoder_parameters()) != freeze


@pytest.mark.parametrize("form", ["model.bin", "openai.pt", "transformers.safetensors"])
def test_training_starts_from_published_weights(tmp_path, form):
    state = encoder().state_dict()
    path = tmp_path / form
    if form == "model.bin":
        path.write_bytes(model_bin(state, half=False))
    elif form == "openai.pt":
        torch.save({"dims": {}, "model_state_dict": {openai_name(n): x for n, x in state.items()}}, path)
    else:
        save_file({f"model.encoder.{n}": x for n, x in state.items()}, path)
    config = Config(
        model_config={"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 32, "heads": 4, "layers": [1, 2]}
    )
    model = load_initial(config, str(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.encoder.state_dict().items())
    save_checkpoint(tmp_path / "ours.pth", {"config": to_dict(config), "model": model.state_dict()})
    again = load_initial(config, str(tmp_path / "ours.pth"))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    with pytest.raises(UserError, match=r"no encoder of Whisper.*9 layers"):
        load_initial(replace(config, model_config=config.model_config | {"layers": [9]}), str(path))
