"""A step follows the papers and torch, also in micro-batches, recomputed, compiled and in half precision."""

import copy
import functools
import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from conftest import MINI_MODEL

from config import Config, OptimConfig
from models import build_model
from training.optimization import Stepper, build_optimizer, follow, learning_rate, uphill

WEIGHTS = (0.3, 0.7)
LABELS = torch.tensor([0, 1, 0, 0, 1, 0])

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Six waveforms and their labels."""
    return torch.randn(6, MINI_MODEL["nb_samp"], generator=torch.Generator().manual_seed(1)), LABELS


def make(dropout: bool = False, optim: dict | None = None, **options) -> Stepper:
    """A stepper whose model has the same weights each time, in training mode."""
    torch.manual_seed(0)
    model = build_model(MINI_MODEL).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    config = Config(model_config=MINI_MODEL, class_weights=WEIGHTS, optim_config=OptimConfig(**optim or {}), **options)
    return Stepper(model, config, steps_per_epoch=5)


def total_weight(y: torch.Tensor) -> float:
    return float(torch.tensor(WEIGHTS)[y].sum())


def step(stepper: Stepper, *parts: tuple[torch.Tensor, torch.Tensor], number: int = 0) -> tuple[float, torch.Tensor]:
    """The loss of one step, and the gradient (of all parameters, flat) that its optimizer used."""
    seen = []
    update = stepper.optimizer.step
    stepper.optimizer.step = lambda: (seen.append(gradient(stepper.model)), update())
    loss = stepper(parts, total_weight(torch.cat([y for _, y in parts])), number)
    stepper.optimizer.step = update
    return loss.item(), seen[0]


def gradient(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def statistics(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal but for rounding, relative to the largest value: some gradients are only rounding errors."""
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def torchs_loss(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    return F.cross_entropy(model(x)[1], y, weight=torch.tensor(WEIGHTS), label_smoothing=smoothing)


# -------------------------------------------------------------------------------------------- optimizer, schedule


def lrs(epochs: int = 10, steps: int = 7, **options) -> list[float]:
    schedule = learning_rate(OptimConfig(base_lr=1e-4, lr_min=5e-6, **options), steps, epochs)
    return [schedule(number) for number in range(steps * epochs + 1)]


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-4)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=70, eta_min=5e-6)
    for lr in lrs(scheduler="cosine"):
        assert lr == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("factor", [1, 2])
def test_sgdr_is_torchs(factor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=factor, eta_min=5e-6)
    for number, lr in enumerate(lrs(scheduler="sgdr", T0=2, Tmult=factor, steps=8)):  # eighths are exact in binary
        optimizer.step()
        reference.step(number / 8)
        assert lr == pytest.approx(reference.get_last_lr()[0], rel=1e-9)


def test_other_schedules():
    steps = lrs(scheduler="multistep", milestones=(2, 5), lr_decay=0.1)
    assert (steps[13], steps[14], steps[35]) == pytest.approx((1e-4, 1e-5, 1e-6))
    decayed = lrs(scheduler="keras_decay")
    assert decayed[70] == pytest.approx(1e-4 / 1.007)
    assert set(lrs(scheduler="none")) == {1e-4}


@pytest.mark.parametrize("scheduler", ["cosine", "none"])
def test_warm_up_grows_linearly_to_the_schedule(scheduler):
    """Step k of the first w is (k + 1)/w of the schedule; from step w − 1 on it is the schedule."""
    plain, warmed = lrs(scheduler=scheduler), lrs(scheduler=scheduler, warmup_epochs=1.5)
    for number, (lr, full) in enumerate(zip(warmed, plain, strict=True)):
        assert lr == pytest.approx(full * min(1, (number + 1) / (1.5 * 7)), rel=1e-12)
    assert warmed[0] == pytest.approx(1e-4 / 10.5) and warmed[10:] == plain[10:]
    assert lrs(scheduler=scheduler, warmup_epochs=0.01) == plain


def test_the_step_uses_the_schedule(batch):
    stepper = make(optim={"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 2.0})
    before = copy.deepcopy(stepper.model.out_layer.weight)
    step(stepper, batch, number=3)
    lr = learning_rate(stepper.config.optim_config, 5, 100)(3)
    assert lr == pytest.approx(1e-4 * 0.4, rel=1e-3)
    weight = stepper.model.out_layer.weight
    torch.testing.assert_close(weight, before - lr * weight.grad)


def test_optimizers_take_the_configured_values():
    model = torch.nn.Linear(2, 2)
    adam = build_optimizer(model, OptimConfig(betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True))
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["betas"], adam.defaults["weight_decay"], adam.defaults["amsgrad"]) == ((0.8, 0.9), 0.1, True)
    sgd = build_optimizer(model, OptimConfig(optimizer="sgd", momentum=0.5, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.5, True)


# -------------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torchs_weighted_mean(batch, smoothing):
    stepper = make(label_smoothing=smoothing)
    reference = copy.deepcopy(stepper.model)
    loss, found = step(stepper, batch)
    expected = torchs_loss(reference, *batch, smoothing)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert_close(found, gradient(reference), 1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_in_parts_the_gradient_is_the_whole_batchs(batch, smoothing):
    """With batch norm in evaluation mode the results are equal; the loss is weighted by the whole batch."""
    whole, parts = make(label_smoothing=smoothing), make(label_smoothing=smoothing, accumulation_steps=3)
    whole.model.eval()
    parts.model.eval()
    loss, expected = step(whole, batch)
    x, y = batch
    split, found = step(parts, *zip(x.split(2), y.split(2), strict=True))
    assert split == pytest.approx(loss, rel=1e-6)
    assert_close(found, expected, 1e-6)


def test_gradients_do_not_pile_up(batch):
    stepper = make(optim={"base_lr": 1e-12, "lr_min": 0.0})
    assert_close(*(step(stepper, batch)[1] for _ in range(2)))


# -------------------------------------------------------------------------------------- what is done with the gradient


def test_long_gradients_are_clipped_and_short_ones_not(batch):
    _, plain = step(make(), batch)
    _, clipped = step(make(optim={"max_grad_norm": plain.norm().item() / 7}), batch)
    torch.testing.assert_close(clipped, plain / 7, rtol=1e-4, atol=1e-9)
    _, short = step(make(optim={"max_grad_norm": plain.norm().item() * 1.01}), batch)
    assert torch.equal(short, plain)


def test_uphill_goes_rho_along_the_gradient_and_exactly_back():
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(5, 3) * 1e3), torch.nn.Parameter(torch.randn(4) * 1e-4)]
    unused = torch.nn.Parameter(torch.ones(2))
    for p in parameters:
        p.grad = torch.randn_like(p)
    before = [p.detach().clone() for p in parameters]
    flat = torch.cat([p.grad.flatten() for p in parameters])
    with uphill([*parameters, unused], 0.5):
        moved = torch.cat([(p.detach() - old).flatten() for p, old in zip(parameters, before, strict=True)])
        torch.testing.assert_close(moved, 0.5 * flat / flat.norm(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(moved[15:], (0.5 * flat / flat.norm())[15:], rtol=1e-6, atol=0)
    assert all(torch.equal(p, old) for p, old in zip(parameters, before, strict=True))
    assert torch.equal(unused, torch.ones(2))


def test_sam_is_the_gradient_uphill_of_the_same_batch(batch):
    """Compared with two passes written by hand; batch norm's statistics use the batch once."""
    stepper = make(optim={"sam_rho": 0.05})
    reference = copy.deepcopy(stepper.model)
    loss, found = step(stepper, batch)
    first = torchs_loss(reference, *batch)
    first.backward()
    assert loss == pytest.approx(first.item(), rel=1e-6)
    assert_same(statistics(stepper.model), statistics(reference))
    norm = gradient(reference).norm()
    with torch.no_grad():
        for p in reference.parameters():
            if p.grad is not None:
                p += 0.05 * p.grad / norm
    reference.zero_grad()
    torchs_loss(reference, *batch).backward()
    assert_close(found, gradient(reference))
    assert (found - step(make(), batch)[1]).norm() > 0.01 * found.norm()


@pytest.mark.parametrize("options", [{"accumulation_steps": 3}, {"recompute": True}], ids=str)
def test_sam_goes_with_the_rest(batch, options):
    """In micro-batches the gradient is that of the whole batch; statistics are updated once."""
    plain, other = make(optim={"sam_rho": 0.05}), make(optim={"sam_rho": 0.05}, **options)
    x, y = batch
    parts = [batch]
    if "accumulation_steps" in options:
        plain.model.eval()
        other.model.eval()
        parts = list(zip(x.split(2), y.split(2), strict=True))
    _, expected = step(plain, batch)
    _, found = step(other, *parts)
    assert_close(found, expected)
    assert_same(statistics(plain.model), statistics(other.model))


def test_follow_is_the_closed_form():
    mean, model = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    for _ in range(2):
        model(torch.randn(8, 3))
    with torch.no_grad():
        model.weight.copy_(torch.tensor([2.0, 0.0, -1.0]))
    before = copy.deepcopy(mean.state_dict())
    follow(mean, model, 0.9)
    for name, new in model.state_dict().items():
        expected = new if name == "num_batches_tracked" else 0.9 * before[name] + 0.1 * new
        torch.testing.assert_close(mean.state_dict()[name], expected)
    assert mean.num_batches_tracked == 2


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_ema_follows_faster_while_it_is_young(batch, decay):
    """m ← d·m + (1 − d)·w after each step, d = min(decay, (1 + n)/(10 + n)) with n the steps before."""
    stepper = make(dropout=True, ema_decay=decay, optim={"base_lr": 1e-3})
    expected = stepper.model.out_layer.weight.detach().double()
    for number in range(6):
        step(stepper, batch, number=number)
        d = min(decay, (1 + number) / (10 + number))
        expected = d * expected + (1 - d) * stepper.model.out_layer.weight.detach().double()
    torch.testing.assert_close(stepper.ema.out_layer.weight.double(), expected, rtol=1e-6, atol=1e-8)
    assert stepper.ema.first_bn.num_batches_tracked == 6
    assert make().ema is None


def test_its_state_is_all_that_resuming_needs(batch):
    """Three steps give the same bits as two steps, a restored stepper, and a third."""
    options = {"dropout": False, "ema_decay": 0.9, "optim": {"base_lr": 1e-3, "amsgrad": True}}
    once, first, then = make(**options), make(**options), make(**options)
    for number in range(3):
        step(once, batch, number=number)
    for number in range(2):
        step(first, batch, number=number)
    then.model.load_state_dict(first.model.state_dict())
    then.load_state_dict(copy.deepcopy(first.state_dict()))
    step(then, batch, number=2)
    assert_same(once.model.state_dict(), then.model.state_dict())
    assert_same(once.ema.state_dict(), then.ema.state_dict())


# ------------------------------------------------------------------------------------------- how it is computed


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak memory of tensors while `work` runs, beyond what they took before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = sorted(profile.events(), key=lambda event: event.time_range.start)
    return max(itertools.accumulate(event.self_cpu_memory_usage for event in events))


def test_recomputing_changes_the_memory_and_nothing_else(batch):
    plain, again = make(dropout=True), make(dropout=True, recompute=True)
    results, peaks = [], []
    for stepper in (plain, again):
        torch.manual_seed(3)
        peaks.append(peak_bytes(lambda stepper=stepper: results.append(step(stepper, batch))))
    assert results[0][0] == results[1][0]
    assert_close(results[0][1], results[1][1], 1e-6)
    assert_same(statistics(plain.model), statistics(again.model))
    assert plain.model.encoder[0][0].bn2.num_batches_tracked == 1
    assert peaks[1] < 0.75 * peaks[0], peaks


def test_recomputing_is_for_training_only(batch, monkeypatch):
    stepper = make(recompute=True)
    monkeypatch.setattr("models.layers.checkpoint", None)
    with torch.inference_mode():
        stepper.model.eval()(batch[0])
    stepper.model.train()
    with pytest.raises(TypeError):
        stepper.model(batch[0])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"optim": {"sam_rho": 0.05}}], ids=str)
def test_compiled_steps_are_the_same(batch, options, monkeypatch):
    """Everything that torch.compile does except the kernels, which torch tests."""
    plain = step(make(**options), batch)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    stepper = make(compile=True, **options)
    names = list(stepper.model.state_dict())
    loss, found = step(stepper, batch)
    assert loss == pytest.approx(plain[0], rel=1e-6)
    assert_close(found, plain[1])
    assert names == list(build_model(MINI_MODEL).state_dict())


def test_bf16_is_for_the_encoder_alone(batch, monkeypatch):
    stepper, types = make(precision="bf16"), {}

    def note(name: str, output) -> None:
        types[name] = (output[0] if isinstance(output, tuple) else output).dtype

    for name, module in stepper.model.named_modules():
        module.register_forward_hook(lambda _module, _input, output, name=name: note(name, output))
    softmax, softened = torch.softmax, []
    monkeypatch.setattr(torch, "softmax", lambda x, dim: softened.append(x.dtype) or softmax(x, dim))
    loss, found = step(stepper, batch)
    halves = {name for name, dtype in types.items() if dtype == torch.bfloat16}
    assert {f"encoder.{i}.0.conv{j}" for i in range(6) for j in (1, 2)} <= halves
    assert all(name.startswith("encoder") for name in halves), halves
    assert len(softened) == 10 and set(softened) == {torch.float32}
    assert {p.dtype for p in stepper.trained} == {found.dtype} == {torch.float32}
    plain, expected = step(make(), batch)
    assert loss == pytest.approx(plain, rel=0.03) and loss != plain
    assert torch.cosine_similarity(found, expected, dim=0) > 0.95


def test_divergence_is_seen(batch):
    x, y = batch
    loss, _ = step(make(), (x * math.inf, y))
    assert not math.isfinite(loss)
