"""A button of the page and the job behind it: what it made is shown only as long as what it was made from.

A change of any input (file, model, settings) clears the job's results and exports, and ends the job if it still runs.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import Enum, auto

from webpage.cards import error_card, message_card, progress_card
from webpage.jobs import CheckProgress
from webpage.limits import JOB_QUEUE

HIDDEN = {"api_visibility": "private", "show_progress": "hidden"}  # of events that only the page itself uses
Updates = Iterator[CheckProgress | dict]  # of a job: its progress, and what it changes: widget → its new value


class State(Enum):
    CURRENT = auto()
    CANCELLED = auto()  # by the visitor
    STALE = auto()  # its inputs have changed
    SUPERSEDED = auto()  # the visitor has started another one, which shows its own results


@dataclass(eq=False)
class Run:
    """One run of a job for one open page. It ends itself: if gradio ended it, the page would show that as an error."""

    inputs: tuple
    nothing: dict  # what the page shows without a result
    state: State = State.CURRENT


class Task:
    """Lets the button `go` run `job`, and `cancel` end it; `card` shows progress, errors and the result.

    job: called with the values of `inputs`. outputs: the other widgets that it changes.
    cleared: called with the values of `inputs`: what `card` and `outputs` show when there is no result.
    `go` is free again as soon as the job has filled `card`; figures and exports may follow.
    """

    def __init__(
        self,
        gr,
        job: Callable[..., Updates],
        inputs: list,
        go,
        cancel,
        card,
        outputs: list,
        cleared: Callable[..., dict],
    ):
        self.gr, self.job, self.inputs, self.card, self.cleared = gr, job, inputs, card, cleared
        self.idle = {go: gr.update(interactive=True), cancel: gr.update(visible=False)}
        self.busy = {go: gr.update(interactive=False), cancel: gr.update(visible=True)}
        self.changed = [card, *outputs, go, cancel]
        self.newest: dict[str | None, Run] = {}  # by session, as gradio calls an open page
        self.start_on(go.click)

        def cancel_run(request: gr.Request) -> None:
            self._end(request.session_hash, State.CANCELLED)

        def clear(request: gr.Request, *values):
            return self._clear(request.session_hash, values)

        cancel.click(cancel_run, queue=False, **HIDDEN)
        gr.on([widget.change for widget in inputs], clear, inputs, self.changed, queue=False, **HIDDEN)

    def start_on(self, event: Callable) -> None:
        """Run the job at this event, too."""
        gr = self.gr

        def run(request: gr.Request, *values) -> Iterator[dict]:
            yield from self._run(request.session_hash, values)

        event(run, self.inputs, self.changed, trigger_mode="multiple", **JOB_QUEUE, **HIDDEN)

    def forget(self, session: str | None) -> None:
        """The page of this session is closed."""
        self._end(session, State.SUPERSEDED)
        self.newest.pop(session, None)

    def _end(self, session: str | None, state: State) -> None:
        if run := self.newest.get(session):
            run.state = state

    def _run(self, session: str | None, values: tuple) -> Iterator[dict]:
        self._end(session, State.SUPERSEDED)
        run = self.newest[session] = Run(values, self.cleared(*values))
        yield {**run.nothing, self.card: progress_card(CheckProgress("Starting")), **self.busy}
        try:
            yield from self._updates(run)
            last = self.idle
        except Exception as error:
            last = {**run.nothing, self.card: error_card(error), **self.idle}
        if run.state is State.CANCELLED:
            last = {**run.nothing, self.card: message_card("Cancelled."), **self.idle}
        elif run.state is State.STALE:  # an update may have crossed the one that cleared the page
            last = {**run.nothing, **self.idle}
        if run.state is not State.SUPERSEDED:
            yield last

    def _updates(self, run: Run) -> Iterator[dict]:
        """What the job changes, until the run is ended."""
        with closing(self.job(*run.inputs)) as items:
            for item in items:
                if isinstance(item, CheckProgress):
                    yield {self.card: progress_card(item)}
                else:
                    yield item | (self.idle if self.card in item else {})
                if run.state is not State.CURRENT:
                    return

    def _clear(self, session: str | None, values: tuple) -> dict:
        """Clear the page unless what it shows, or is about to show, was made from these very inputs."""
        run = self.newest.get(session)
        if run and run.state is State.CURRENT and run.inputs == values:
            return self.gr.skip()
        nothing = self.cleared(*values)
        if run:
            run.state, run.nothing = State.STALE, nothing
        return {**nothing, **self.idle}
