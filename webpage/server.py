"""The page's server: its temporary files, its start, and the model that is loaded before the first visitor needs it."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.escaping import printable
from scoring.weights import OFFICIAL, checkpoint_path
from webpage.examples import example_files
from webpage.figures import figure_panels
from webpage.jobs import held_uploads
from webpage.page import STATIC, Page
from webpage.settings import judge_options

FIRST_SCREEN_SECONDS = (
    3  # after the start, in which the first visitor's page loads; loading the model would slow it down
)


@contextmanager
def temporary_files() -> Iterator[None]:
    """Put uploads and everything else that the server writes into one temporary folder, and remove it at the end.

    Call it before gradio is imported.
    """
    folder = Path(tempfile.mkdtemp(prefix="aasist_"))
    (folder / "jobs").mkdir()
    tempfile.tempdir = str(folder / "jobs")
    os.environ |= {"GRADIO_TEMP_DIR": str(folder / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    if not os.access(os.path.expanduser("~"), os.W_OK):  # matplotlib would use, and remove, a folder in here
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def listening(
    page: Page, host: str, port: int, upload_bytes: int, auth: tuple[str, str] | None = None, public: bool = False
) -> Iterator[None]:
    """Answer requests while the context lasts. Raises UserError when the port cannot be used.

    upload_bytes: largest upload. public: also at an address of gradio's makers.
    """
    try:
        page.blocks.launch(
            server_name=host,
            server_port=port,
            share=public,
            auth=auth,
            max_file_size=upload_bytes,
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
        raise UserError(f"cannot listen on {host} port {port}", "a free port", found) from error
    try:
        yield
    finally:
        page.blocks.close(verbose=False)


def _theme(gr):
    """gradio's default theme with more contrast."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Default(primary_hue="sky", neutral_hue="slate", **fonts).set(
        color_accent="#0b5a8f",
        button_primary_background_fill="#0b5a8f",
        button_primary_background_fill_hover="#084a76",
        body_text_color_subdued="*neutral_600",
    )


def serve_until_stopped(page: Page, model: str) -> None:
    """Let the first page load, warm up, and wait for the signal that ends the command."""
    time.sleep(FIRST_SCREEN_SECONDS)
    warm_up(page, model)
    threading.Event().wait()


def warm_up(page: Page, model: str) -> None:
    """Load packages, the model and the decoding process by checking an example, so that no visitor waits for them."""
    if model in OFFICIAL and not checkpoint_path(model).is_file():  # download it only if a visitor asks for it
        return
    try:
        with held_uploads([Path(example_files()["bonafide"])]) as files:
            *_, checked = page.checker.check(files, model, "auto", judge_options("model", None, None, 50, "mean"))
            figure_panels(checked)
    except Exception as error:  # the page serves without it, and shows each visitor what fails
        print(printable(f"note: {model}: {error}"), file=sys.stderr)
