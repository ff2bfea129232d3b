"""The page's server: its start, its cleaning, and the model that is loaded before the first visitor needs it."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.escaping import printable
from scoring.weights import OFFICIAL, checkpoint_path
from webpage.background import end_all
from webpage.examples import EXAMPLES, example
from webpage.exports import write_exports
from webpage.figures import recording_pngs
from webpage.guard import THIS_COMPUTER, Guard
from webpage.page import Page
from webpage.settings import judge_options
from webpage.storage import remove_old_uploads
from webpage.upstream import note_upload_fragments
from webpage.widgets import STATIC

FIRST_SCREEN_SECONDS = 3  # in which the first visitor's page may load; loading the model would slow it down


@dataclass(frozen=True)
class Address:
    """Where the page is offered, and to whom."""

    host: str
    port: int
    auth: tuple[str, str] | None = None  # name and password
    share: bool = False  # also at an address of gradio's makers
    behind_proxy: bool = False


@contextmanager
def listening(page: Page, address: Address, uploads: Path, upload_bytes: int) -> Iterator[None]:
    """Answer requests while the context lasts. Raises UserError when the port cannot be used.

    uploads: the folder that uploads go to; upload_bytes: the largest upload.
    """
    from starlette.middleware import Middleware

    note_upload_fragments()
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn believes no proxy: the guard reads what one says
    only_here = address.host in THIS_COMPUTER and not (address.share or address.behind_proxy)
    guard = Middleware(Guard, behind_proxy=address.behind_proxy, this_computer=only_here, folder=uploads)
    try:
        page.blocks.launch(
            server_name=address.host,
            server_port=address.port,
            share=address.share,
            auth=address.auth,
            max_file_size=upload_bytes,
            app_kwargs={"middleware": [guard]},
            theme=_theme(page.gr),
            css=(STATIC / "page.css").read_text(encoding="utf-8"),
            footer_links=["api"],
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
        )
    except OSError as error:
        found = "it is in use, or the address is not this computer's"
        raise UserError(f"cannot listen on {address.host} port {address.port}", "a free port", found) from error
    try:
        yield
    finally:
        end_all()  # first, because the server waits for the answers of jobs
        page.blocks.close(verbose=False)
        end_all()  # what began meanwhile


def _theme(gr):
    """gradio's default theme with more contrast."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Default(primary_hue="sky", neutral_hue="slate", **fonts).set(
        color_accent="#0b5a8f",
        button_primary_background_fill="#0b5a8f",
        button_primary_background_fill_hover="#084a76",
        body_text_color_subdued="*neutral_600",
    )


def serve_until_stopped(page: Page, model: str, uploads: Path) -> None:
    """Let the first page load, warm up, and clean the folder of uploads until the signal that ends the command."""
    page.opened.wait(FIRST_SCREEN_SECONDS)
    warm_up(page, model)
    page.ready.set()
    interval, seconds = page.blocks.delete_cache
    while True:
        time.sleep(interval)
        remove_old_uploads(uploads, seconds + 2 * interval)  # after gradio, which forgets only what it removes itself


def warm_up(page: Page, model: str) -> None:
    """Load packages, the model and the decoding process by checking an example, so that no visitor waits for them."""
    if model in OFFICIAL and not checkpoint_path(model).is_file():  # download it only if a visitor asks for it
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(shutil.copy(example(next(iter(EXAMPLES))), folder))
            *_, checked = page.checker.check([file], model, "auto", judge_options("model", None, None, 50, "mean"))
            write_exports(checked, recording_pngs(checked), Path(folder))
    except Exception as error:  # the page serves without it, and shows each visitor what fails
        print(printable(f"note: {model}: {error}"), file=sys.stderr)
