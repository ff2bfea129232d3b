"""An object in a process with limits: results, errors, crashes, limits, and calls of several threads."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from common.errors import UserError
from common.limited import LimitedProcess


class Adder:
    """What the tests put into a process."""

    def __init__(self, name: str):
        if name == "bad":
            raise UserError("bad from the start")
        self.name = name

    def add(self, x: int, y: int) -> int:
        return x + y

    def fail(self) -> None:
        raise KeyError("nothing")

    def crash(self) -> None:
        os.abort()

    def take(self, size: int) -> int:
        return len(bytes(size))

    def compute(self) -> None:
        while True:
            pass


@pytest.fixture(scope="module")
def adder() -> LimitedProcess:
    return LimitedProcess(Adder, "adder", facts=("name",), memory=200 << 20, seconds=20)


def test_facts_results_and_errors(adder):
    assert adder.facts == {"name": "adder"} and adder.call("add", 1, 2) == 3
    with pytest.raises(UserError, match="adder cannot be used.*KeyError"):
        adder.call("fail")
    with pytest.raises(UserError, match="adder cannot be used.*MemoryError"):
        adder.call("take", 1 << 30)
    assert adder.call("take", 1 << 20) == 1 << 20
    with pytest.raises(UserError, match="bad from the start"):
        LimitedProcess(Adder, "bad", facts=(), memory=200 << 20, seconds=20)


def test_threads_get_their_own_results(adder):
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: adder.call("add", n, n), range(200))) == [2 * n for n in range(200)]


@pytest.mark.parametrize("method", ["crash", "compute"])
def test_a_process_that_ends_or_does_not_is_one_error(method):
    process = LimitedProcess(Adder, "adder", facts=(), memory=200 << 20, seconds=1)
    for _ in range(2):
        with pytest.raises(UserError, match="1 s for a call, found more, or a crash"):
            process.call(method)
