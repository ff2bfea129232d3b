"""Each loss against the formula of its paper, computed by hand; class weights; training with one of them."""

import numpy as np
import pytest
import torch
from conftest import MINI_MODEL, events, run_command, train_mini, weights
from scipy.special import log_softmax

from common.errors import UserError
from config import ANGULAR, Config, LossConfig, load_config
from models import build_model
from models.layers import Cosine
from training.losses import LOSSES, build_loss

CPU = torch.device("cpu")
NAMES = ("CCE", *LOSSES)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines (6, 2) in double precision, labels (6,) of both classes."""
    cosines = torch.rand(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    return cosines, torch.tensor([0, 1, 1, 0, 1, 0])


def config_of(loss: str, **changes) -> Config:
    return Config(model_config={"architecture": "AASIST"}, loss=loss, class_weights=(0.1, 0.9), **changes)


def by_hand(name: str, z: np.ndarray, y: np.ndarray, c: LossConfig) -> np.ndarray:
    """The loss of each utterance (B,), as the papers print it."""
    rows, others = np.arange(len(y)), 1 - y
    if name == "focal":
        p = np.exp(log_softmax(z, axis=1))[rows, y]
        return -((1 - p) ** c.focal_gamma) * np.log(p)
    if name == "OCSoftmax":  # the paper's labels are 0 for bona fide and 1 for spoof
        margin = np.where(y == 1, c.oc_margins[1], c.oc_margins[0])
        return np.log(1 + np.exp(c.scale * (margin - z[:, 1]) * (-1.0) ** (1 - y)))
    if name == "AMSoftmax":
        own, other = np.exp(c.scale * (z[rows, y] - c.am_margin)), np.exp(c.scale * z[rows, others])
        return -np.log(own / (own + other))
    if name == "P2SGrad":
        return (z[rows, y] - 1) ** 2 + z[rows, others] ** 2
    return -log_softmax(z, axis=1)[rows, y]


@pytest.mark.parametrize("name", NAMES)
def test_is_the_papers_formula_weighted_by_class(name):
    cosines, y = batch()
    loss_config = LossConfig(focal_gamma=1.5, scale=7.0, oc_margins=(0.1, 0.7), am_margin=0.3)
    loss = build_loss(config_of(name, loss_config=loss_config), CPU)
    each = by_hand(name, cosines.numpy(), y.numpy(), loss_config)
    expected = (np.array([0.1, 0.9])[y] * each).sum()
    assert loss(cosines.float(), y).item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_gamma_is_cross_entropy():
    cosines, y = batch()
    losses = [build_loss(config_of(name, loss_config=LossConfig(focal_gamma=0.0)), CPU) for name in ("focal", "CCE")]
    assert losses[0](cosines.float(), y).item() == pytest.approx(losses[1](cosines.float(), y).item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_against_the_gradient_raises_bonafide_scores_and_lowers_spoof(name):
    cosines, y = batch()
    cosines = cosines.float().requires_grad_()
    build_loss(config_of(name), CPU)(cosines, y).backward()
    gradient = cosines.grad[:, 1]
    assert (gradient[y == 1] <= 0).all()
    assert (gradient[y == 0] >= 0).all() or name == "P2SGrad"  # whose target is 0, not less
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_logits_give_finite_losses_and_gradients(name, gamma):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0], [1e4, -1e4]], requires_grad=True)
    config = config_of(name, loss_config=LossConfig(focal_gamma=gamma))
    loss = build_loss(config, CPU)(logits, torch.tensor([0, 1, 1, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_cosines():
    torch.manual_seed(0)
    layer, x = Cosine(5), torch.randn(7, 5)
    cosines = layer(x)
    expected = torch.nn.functional.cosine_similarity(x[:, None], layer.weight[None], dim=2)
    torch.testing.assert_close(cosines, expected)
    torch.testing.assert_close(layer(3 * x), cosines)
    assert layer(torch.zeros(1, 5)).tolist() == [[0.0, 0.0]]
    assert (layer.weight @ layer.weight.T - torch.eye(2)).abs().max() < 1e-6


@pytest.mark.parametrize("name", ANGULAR)
def test_angular_losses_make_the_model_end_in_cosines(name):
    config = Config(model_config=MINI_MODEL, loss=name)
    assert config.model_config["output"] == "cosine"
    assert "output" not in MINI_MODEL
    _, logits = build_model(config.model_config).eval()(torch.randn(2, 2400))
    assert logits.abs().max() <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "OCSoftmax", "model_config": {"output": "linear"}}, "output.*cosine, with the loss OCSoftmax"),
        ({"model_config": {"output": "cosine"}}, "output.*linear, with the loss CCE"),
        ({"loss": "focal", "label_smoothing": 0.1}, "label_smoothing.*0 with the loss focal"),
    ],
)
def test_combinations_that_do_not_fit(changes, words):
    with pytest.raises(UserError, match=words):
        Config(**{"model_config": {}} | changes)


@pytest.mark.parametrize(
    "values", [{"scale": 0.0}, {"oc_margins": (0.9, 0.2)}, {"focal_gamma": -1.0}, {"am_margin": 2.0}]
)
def test_bad_numbers(values):
    with pytest.raises(UserError, match=f"loss_config.{next(iter(values))}"):
        LossConfig(**values)


def test_an_unknown_loss_lists_the_known_ones(tmp_path):
    (tmp_path / "a.conf").write_text("model_config: {architecture: AASIST}\nloss: hinge\n")
    with pytest.raises(UserError, match="one of CCE, focal, OCSoftmax, AMSoftmax, P2SGrad, found 'hinge'"):
        load_config(tmp_path / "a.conf")


def test_a_run_with_a_margin_loss_is_scored_by_its_checkpoint(tiny_corpus, tmp_path):
    run = train_mini(tmp_path, tiny_corpus, loss="OCSoftmax", balance=["key", "attack"], class_weights=[0.5, 0.5])
    assert [event["loss"] for event in events(run, "epoch")]
    assert "out_layer.bias" not in weights(run, "best")
    wav = next(tiny_corpus.glob("ASVspoof2019_LA_eval/flac/*.flac"))
    done = run_command("inference.py", "--audio", wav, "--model", run / "weights" / "best.pth")
    assert done.returncode == 0, done.stderr
