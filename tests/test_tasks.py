"""A result on the page never outlives what it was made from (webpage/tasks.py), without a server or a browser."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from common.errors import UserError
from webpage.jobs import CheckProgress
from webpage.tasks import Task

SESSION = "a page"


class FakeGradio:
    """What a task uses of gradio; `handlers` are the functions it registered: run, cancel, clear."""

    Request = SimpleNamespace

    def __init__(self) -> None:
        self.handlers: list[Callable] = []

    def on(self, _events, handler, *_, **__) -> None:
        self.handlers.append(handler)

    def register(self, handler, *_, **__) -> None:
        self.handlers.append(handler)

    update = staticmethod(lambda **values: values)
    skip = staticmethod(lambda: "skipped")


class Screen:
    """A task whose updates are applied as a browser would."""

    def __init__(self, job: Callable):
        gr, self.shown = FakeGradio(), {}
        self.go, cancel, file = _Widget(gr), _Widget(gr), SimpleNamespace(change=None)
        Task(gr, job, [file], self.go, cancel, "card", ["export"], lambda *_: {"card": "empty", "export": "none"})
        self.run_handler, self.cancel_handler, self.clear_handler = gr.handlers

    def apply(self, update) -> None:
        if update != "skipped":
            self.shown |= update

    def start(self, file: str):
        """The running job: each `next` shows one update."""
        for update in self.run_handler(SimpleNamespace(session_hash=SESSION), file):
            self.apply(update)
            yield

    def change(self, file: str) -> None:
        self.apply(self.clear_handler(SimpleNamespace(session_hash=SESSION), file))

    def cancel(self) -> None:
        self.cancel_handler(SimpleNamespace(session_hash=SESSION))


class _Widget:
    """A button that can be a key of an update."""

    def __init__(self, gr: FakeGradio):
        self.click = gr.register


def job(file: str):
    yield CheckProgress("listening")
    if file == "broken":
        raise UserError("no such thing")
    yield {"card": f"verdict on {file}"}
    yield {"export": f"{file}.pdf"}


def test_a_result_stays_while_its_inputs_do():
    screen = Screen(job)
    list(screen.start("a"))
    screen.change("a")
    assert screen.shown["card"] == "verdict on a" and screen.shown["export"] == "a.pdf"
    screen.change("b")
    assert screen.shown["card"] == "empty" and screen.shown["export"] == "none"


@pytest.mark.parametrize("updates", [1, 2, 3, 4])
def test_a_change_while_the_job_runs_leaves_nothing_of_it(updates):
    screen = Screen(job)
    running = screen.start("a")
    for _ in range(updates):
        next(running)
    screen.change("b")
    list(running)  # what was on its way still arrives
    assert screen.shown["card"] == "empty" and screen.shown["export"] == "none"


def test_a_change_to_the_inputs_of_the_running_job_does_not_end_it():
    screen = Screen(job)
    running = screen.start("b")
    next(running)
    screen.change("b")  # as when a row of the table sets the file and starts the job at once
    list(running)
    assert screen.shown["card"] == "verdict on b"


def test_a_second_click_takes_over_from_the_first():
    screen = Screen(job)
    first = screen.start("a")
    next(first), next(first)
    second = screen.start("b")
    next(second)
    list(first)
    assert "verdict" not in screen.shown["card"]
    list(second)
    assert screen.shown["card"] == "verdict on b" and screen.shown["export"] == "b.pdf"


def test_a_job_that_was_ended_takes_nothing_from_the_next_one():
    screen = Screen(job)
    first = screen.start("a")
    next(first), next(first), next(first)  # it still draws
    screen.change("b")
    second = screen.start("b")
    next(second), next(second), next(second)
    list(first)
    assert screen.shown["card"] == "verdict on b"
    list(second)
    assert screen.shown["export"] == "b.pdf"


def test_the_button_is_free_as_soon_as_the_verdict_stands():
    screen = Screen(job)
    running, free = screen.start("a"), []
    for _ in running:
        free.append((screen.shown[screen.go]["interactive"], screen.shown["export"]))
    assert free == [(False, "none"), (False, "none"), (True, "none"), (True, "a.pdf"), (True, "a.pdf")]


def test_cancelled_and_failed_jobs_leave_no_result():
    screen = Screen(job)
    running = screen.start("a")
    next(running), next(running), next(running)
    screen.cancel()
    list(running)
    assert "Cancelled" in screen.shown["card"] and screen.shown["export"] == "none"
    list(screen.start("broken"))
    assert "No such thing" in screen.shown["card"] and screen.shown["export"] == "none"
