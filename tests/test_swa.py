"""Which epochs the mean of weights takes: the published rule, its fallback, and the last so many."""

import pytest
import torch
from torch import nn

from config import Config, SWAConfig
from training.swa import WeightAverage


def averaged(eers: list[float], num_epochs: int = 20, **policy) -> WeightAverage:
    """The mean after epochs of these dev EERs (%), in each of which the only weight is the epoch's number."""
    model = nn.Linear(1, 1, bias=False)
    mean, best = WeightAverage(model, Config(model_config={}, num_epochs=num_epochs, swa=SWAConfig(**policy))), 100.0
    for epoch, eer in enumerate(eers, start=1):
        nn.init.constant_(model.weight, epoch)
        before = len(mean.epochs)
        taken = mean.update(model, epoch, eer, improved=eer <= best)
        assert taken == (mean.epochs[-1:] == [epoch]) and (taken or len(mean.epochs) == before)
        best = min(best, eer)
    return mean


@pytest.mark.parametrize(
    ("eers", "policy", "epochs"),
    [
        ([5.0, 0.9, 2.0, 0.9, 0.8, 0.85], {}, [2, 4, 5]),  # from 1 % on, epochs that improve; a tie improves
        ([5.0] * 20, {}, [19, 20]),  # never so low: the last tenth
        ([*[5.0] * 18, 4.0, 0.5], {}, [20]),  # it begins late: what the fallback took is dropped
        ([*[5.0] * 18, 0.5, 0.6], {}, [19]),
        ([3.0, 2.0], {"max_dev_eer": 2.5}, [2]),
        ([0.5] * 20, {"last": 3}, [18, 19, 20]),
    ],
)
def test_which_epochs(eers, policy, epochs):
    mean = averaged(eers, **policy)
    assert mean.epochs == epochs
    assert mean.model.weight.item() == pytest.approx(sum(epochs) / len(epochs))


def test_less_than_ten_epochs_have_a_last_one():
    assert averaged([5.0] * 3, num_epochs=3).epochs == [3]


def test_a_restored_mean_goes_on():
    whole, first, then = (averaged(eers) for eers in ([0.9, 0.8, 0.7], [0.9, 0.8], []))
    then.restore(first.averaged.state_dict(), list(first.epochs), first.triggered)
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3)
    assert then.update(model, 3, 0.7, improved=True)
    assert then.epochs == whole.epochs and torch.equal(then.model.weight, whole.model.weight)
