"""Batch norm is torch's, and exact in channels-last training too."""

import copy

import pytest
import torch
from conftest import MINI_MODEL
from torch import nn
from torch.optim.swa_utils import update_bn

from config import Config, OptimConfig
from models import batch_norm, build_model
from training.optimization import Stepper
from training.swa import WeightAverage

pytestmark = pytest.mark.usefixtures("one_thread")
LAST = torch.channels_last


def pair(channels: int, **options) -> tuple[nn.Module, nn.Module]:
    """Our layer, and torch's in float64, with the same weights."""
    torch.manual_seed(0)
    own = batch_norm.BatchNorm2d(channels, **options)
    nn.init.uniform_(own.weight, 0.5, 1.5)
    nn.init.normal_(own.bias)
    expected = nn.BatchNorm2d(channels, **options).double()
    expected.load_state_dict(own.state_dict())
    return own, expected


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape", [(2, 3, 5, 7), (4, 4, 23, 900), (3, 8, 1, 5000), (2, 5, 3000, 1), (2, 1, 4, 5)], ids=str
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_it_is_float64s(kind, shape, momentum):
    own, expected = pair(shape[1], momentum=momentum)
    for _ in range(2):
        x = (3 * torch.randn(shape) + 20).to(kind).contiguous(memory_format=LAST).requires_grad_()
        exact, grad = x.detach().double().requires_grad_(), torch.randn(shape).to(kind)
        y, right = own(x), expected(exact)
        y.backward(grad.contiguous(memory_format=LAST))
        right.backward(grad.double())
        rounding = 1e-5 if kind == torch.float32 else 2e-2
        assert y.dtype == x.grad.dtype == kind
        torch.testing.assert_close(y.double(), right, rtol=rounding, atol=rounding)
        torch.testing.assert_close(x.grad.double(), exact.grad, rtol=rounding, atol=rounding)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-5, atol=1e-6, check_dtype=False)
    for parameter, right in zip(own.parameters(), expected.parameters(), strict=True):
        size = right.grad.abs().max().item()
        torch.testing.assert_close(parameter.grad.double(), right.grad, rtol=0, atol=1e-5 * size)


def test_millions_of_values_are_added_up_exactly():
    own, expected = pair(2)
    x = (torch.randn(1, 2, 1000, 1000) + 1).contiguous(memory_format=LAST)
    own(x), expected(x.double())
    torch.testing.assert_close(own.running_var.double(), expected.running_var, rtol=1e-6, atol=0)


def test_outside_of_training_it_is_torchs():
    own, _ = pair(4)
    plain = nn.BatchNorm2d(4)
    plain.load_state_dict(own.state_dict())
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(own(x), plain(x))  # contiguous
    assert torch.equal(own.eval()(x.contiguous(memory_format=LAST)), plain.eval()(x.contiguous(memory_format=LAST)))


MODELS = {"AASIST": MINI_MODEL, "LFCC_LCNN": {"architecture": "LFCC_LCNN", "nb_samp": 8000, "channels": [4, 6, 8, 4]}}


@pytest.mark.parametrize("name", MODELS)
def test_twenty_steps_have_the_losses_of_the_contiguous_layout(name):
    """With small steps: so small an AASIST soon keeps other nodes where two have nearly the same score."""
    losses, slow = {}, OptimConfig(base_lr=1e-5)
    for layout in (LAST, torch.contiguous_format):
        torch.manual_seed(0)
        model = build_model(MODELS[name]).train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        stepper = Stepper(model, Config(MODELS[name], optim_config=slow), steps_per_epoch=20)
        assert stepper.layout is LAST
        model.to(memory_format=layout)
        y = torch.tensor([0, 1, 0, 1])
        batches = [(torch.randn(4, MODELS[name]["nb_samp"]), y) for _ in range(20)]
        losses[layout] = [float(stepper([batch], 2.0, number)) for number, batch in enumerate(batches)]
    assert losses[LAST] == pytest.approx(losses[torch.contiguous_format], rel=1e-5)


def test_the_means_statistics_are_exact_too():
    model = build_model(MINI_MODEL)
    mean, plain = WeightAverage(model, Config(MINI_MODEL)), copy.deepcopy(model)
    batches = [torch.randn(4, MINI_MODEL["nb_samp"]) for _ in range(3)]
    mean.model.to(memory_format=LAST)
    torch.manual_seed(1)  # dropout comes after the encoder
    mean.refresh_batch_norm(batches, torch.device("cpu"))
    torch.manual_seed(1)
    update_bn(batches, plain)
    for name, value in plain.encoder.state_dict().items():
        torch.testing.assert_close(mean.model.encoder.state_dict()[name], value, rtol=1e-5, atol=1e-6)
