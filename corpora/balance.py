"""Which training trials an epoch contains, and in which order: each once, or every group of `balance` equally often."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from config import Config
from corpora.trials import Trial


def epoch_batches(trials: Sequence[Trial], config: Config, epoch: int) -> np.ndarray:
    """Trial indices (steps, batch_size) of an epoch's batches: its order, without an incomplete last batch."""
    order = epoch_order(trials, config, epoch)
    count = len(trials) // config.batch_size * config.batch_size
    return order[:count].reshape(-1, config.batch_size)


def epoch_order(trials: Sequence[Trial], config: Config, epoch: int) -> np.ndarray:
    """Trial indices (N,) of an epoch; seed and epoch alone decide.

    Every trial comes once or, with `config.balance`, every group equally often. Groups are equal at each level of
    nesting: [key, attack] makes half of the epoch bona fide and divides the other half equally among the attacks. With
    `config.balance_power` above 0 a group's share grows with this power of its size; the two classes stay equal.
    """
    rng = np.random.default_rng((config.seed, epoch))
    return _balanced(trials, config, rng) if config.balance else rng.permutation(len(trials))


def balance_weights(trials: Sequence[Trial], balance: Sequence[str], power: float = 0.0) -> np.ndarray:
    """(N,) weight of each trial when the groups of `config.balance` have their shares; the mean is 1."""
    weights = np.empty(len(trials))
    for fraction, members in _groups(trials, balance, power):
        weights[members] = fraction * len(trials) / len(members)
    return weights


def _balanced(trials: Sequence[Trial], config: Config, rng: np.random.Generator) -> np.ndarray:
    """Trial indices (N,) in random order, each group as often as its fraction says."""
    groups, size = _groups(trials, config.balance, config.balance_power), len(trials)
    fractions = np.array([fraction for fraction, _ in groups])
    edges = np.floor(np.cumsum([0.0, *fractions]) * size + rng.random()).astype(int)  # rounds fairly over epochs
    counts = np.diff(np.append(edges[:-1], edges[0] + size))
    drawn = [_repeated(members, count, rng) for (_, members), count in zip(groups, counts, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def _groups(trials: Sequence[Trial], balance: Sequence[str], power: float) -> list[tuple[float, list[int]]]:
    """(fraction of an epoch, trial indices) of each group."""
    levels = [([getattr(trial, name) for trial in trials], 0.0 if name == "key" else power) for name in balance]
    return _nested(range(len(trials)), levels)


def _nested(
    members: Sequence[int], levels: Sequence[tuple[list[str], float]], fraction: float = 1.0
) -> list[tuple[float, list[int]]]:
    """The groups by the first level's column, then within each by the next; together they have `fraction`."""
    if not levels:
        return [(fraction, list(members))]
    (column, power), *rest = levels
    groups = defaultdict(list)
    for member in members:
        groups[column[member]].append(member)
    total = sum(len(own) ** power for own in groups.values())
    return [part for own in groups.values() for part in _nested(own, rest, fraction * len(own) ** power / total)]


def _repeated(members: list[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the members (count,), none a second time before all have been drawn."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, np.empty(0, int)])[:count].astype(int)
