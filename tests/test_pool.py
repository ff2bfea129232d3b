"""common/pool.py: results in order, few computed ahead, and one line when a worker dies."""

import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from common import pool
from common.errors import UserError
from common.pool import map_in_order


def touch(path: Path) -> str:
    path.touch()
    return path.name


def die(_item: int) -> None:
    os._exit(9)


def fail(item: int) -> int:
    if item == 13:
        raise UserError("item 13")
    return item


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers):
    assert list(map_in_order(str, list(range(50)), workers)) == [str(number) for number in range(50)]
    assert list(map_in_order(str, [], workers)) == []


def test_results_do_not_pile_up(tmp_path):
    results = map_in_order(touch, [tmp_path / str(number) for number in range(500)], 2)
    next(results)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 6 * pool.CHUNK
    assert [next(results) for _ in range(20)] == [str(number) for number in range(1, 21)]
    results.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_the_function_are_raised(workers):
    with closing(map_in_order(fail, list(range(50)), workers)) as results, pytest.raises(UserError, match="^item 13$"):
        list(results)


def test_a_worker_that_dies():
    with pytest.raises(UserError, match="a worker process died — expected enough memory for 2 of them"):
        list(map_in_order(die, list(range(20)), 2))


def test_a_system_without_semaphores(monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pool, "ProcessPoolExecutor", refuse)
    with pytest.raises(UserError, match="cannot start worker processes — expected a writable /dev/shm, or 0 of them"):
        list(map_in_order(str, [1], 2))
