"""Parity with the authors' code: weights, outputs, one training step. Fixtures: ../shared/fixtures/README.md."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, TINY_MODEL

from cli import UserError
from config import load_config
from models import architectures, build_model
from models.layers import GraphPool, ResidualBlock, SincBank

SIZES = {"AASIST": 297_866, "AASIST-L": 85_306}


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


@pytest.mark.parametrize("name", SIZES)
def test_official_weights_give_official_outputs(name, shared):
    model, reference = official(name, shared)
    with torch.inference_mode():
        hidden, logits = model.eval()(torch.from_numpy(reference["waveforms"]))
    np.testing.assert_allclose(hidden, reference["last_hidden"], atol=1e-4)
    np.testing.assert_allclose(logits, reference["logits"], atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
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
        # A bias just before a batch norm has no effect, hence no gradient but rounding: below 3e-4 all are such.
        assert norms[parameter] == pytest.approx(norm, rel=1e-3, abs=3e-4), parameter

    torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4).step()
    with torch.inference_mode():
        _, after = model.eval()(x)
    # Adam makes a full step of each of those roundings' signs, so that the third digit is anybody's. In AASIST's first
    # row two temporal nodes are so close (3e-4) at the pool's edge that the roundings choose between them: 0.08.
    tolerance = np.array([[0.1 if name == "AASIST" else 0.01], [0.01], [0.01], [0.01]])
    assert (np.abs(after.numpy() - reference["step_after_logits"]) < tolerance).all()


def test_filter_bank_is_fixed_and_not_saved():
    model = build_model(TINY_MODEL)
    assert not [name for name in model.state_dict() if "conv_time" in name]
    assert model.conv_time.bank.shape == (70, 1, 129)
    assert not model.conv_time.bank.requires_grad


def test_filters_pass_their_band():
    bank = SincBank(70, 128).bank[:, 0]
    response = torch.fft.rfft(bank, 16_000).abs()  # 1 Hz bins
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 71)
    edges = 700 * (10 ** (mel / 2595) - 1)
    for i in range(40, 70):  # these bands are wide enough for 129 taps to find
        assert edges[i] < response[i].argmax() < edges[i + 1]
        assert response[i, : round(edges[i] - 250)].max() < 0.1 * response[i].max()


def test_frequency_masking_acts_in_training_only():
    model = build_model(TINY_MODEL)
    x = torch.randn(2, 8000)
    with torch.inference_mode():
        model.eval()
        assert torch.equal(model(x, freq_aug=True)[1], model(x)[1])
    masked = torch.stack([model.conv_time(x, mask=True) for _ in range(50)])  # (50, B, C, T)
    silent = (masked == 0).all(dim=3).sum(dim=2)  # (50, B) filters
    assert torch.equal(silent[:, 0], silent[:, 1])  # one mask for the batch
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


def test_unused_batch_norms_get_no_gradient():
    model = build_model(TINY_MODEL)
    model(torch.randn(2, 8000))[1].sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == [f"encoder.{i}.0.bn1.{part}" for i in range(1, 6) for part in ("weight", "bias")]


def test_a_small_bank_is_never_masked_beyond_its_end():
    bank = SincBank(filters=3, taps=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        silent = {int((bank._masked() == 0).all(dim=(1, 2)).sum()) for _ in range(50)}
    assert silent == {0, 1, 2}


def out_of_place(block: ResidualBlock, x: torch.Tensor) -> torch.Tensor:
    """The block as the authors write it."""
    y = block.conv2(F.selu(block.bn2(block.conv1(x))))
    return F.max_pool2d(y + (x if block.same_channels else block.conv_downsample(x)), (1, 3))


@pytest.mark.parametrize("channels", [(3, 3), (2, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_in_place_operations_cost_no_gradient(channels, training):
    """It is that of the block without them, and of finite differences."""
    torch.manual_seed(0)
    block = ResidualBlock(*channels).double().train(training)
    x = torch.randn(2, channels[0], 3, 9, dtype=torch.double, requires_grad=True)
    results = []
    for forward in (block, lambda x: out_of_place(block, x)):
        block.zero_grad()
        y = forward(x)
        gradient = torch.autograd.grad(y.square().sum(), [x, *(p for p in block.parameters() if p.requires_grad)])
        results.append([y, *gradient])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(block, x)


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
