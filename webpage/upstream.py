"""The three places where the page changes what foreign code does; tests/test_webpage.py notices when that code moves.

They were written for gradio 6.31. Try an update of gradio without them first: any may have become unnecessary.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from common.errors import UserError

upload_fragments: ContextVar[list[str]] = ContextVar("upload_fragments")  # temporary files of the upload in progress


def import_gradio():
    """The package gradio, imported in half the time. Raises UserError when it is not installed."""
    try:
        with hidden_class_sources():
            import gradio
    except ImportError as error:
        raise UserError("the package gradio is missing", "pip install -r requirements-app.txt", error) from error
    return gradio


@contextmanager
def hidden_class_sources() -> Iterator[None]:
    """Let `inspect.getfile` find no class.

    Reason: while gradio is imported, it compares the source of each component with a type stub beside it, which takes
    half of the import. It skips components whose source it cannot find (`gradio.component_meta`).
    """
    getfile = inspect.getfile

    def getfile_without_classes(thing):
        if isinstance(thing, type):
            raise OSError("no source")
        return getfile(thing)

    inspect.getfile = getfile_without_classes
    try:
        yield
    finally:
        inspect.getfile = getfile


def refuse_addresses(blocks) -> None:
    """Let the components of a `gradio.Blocks` take uploaded files only.

    Reason: a client of the API may send an address in place of a file, and gradio would download it, whatever its size.
    It does so in `async_move_resource_to_block_cache`.
    """
    import gradio

    def files_only(move_to_cache):
        async def refuse_or_move(path):
            if "://" in str(path):
                raise gradio.Error("send a file, not an address", print_exception=False)
            return await move_to_cache(path)

        return refuse_or_move

    for block in blocks.blocks.values():
        block.async_move_resource_to_block_cache = files_only(block.async_move_resource_to_block_cache)


def note_upload_fragments() -> None:
    """Let gradio note the temporary files of each upload in `upload_fragments`.

    Reason: it leaves them on the disk when an upload breaks off or the disk is full (`GradioMultiPartParser`).
    """
    from gradio import route_utils

    make_file = route_utils.NamedTemporaryFile

    def make_noted_file(*args, **options):
        file = make_file(*args, **options)
        upload_fragments.get([]).append(file.name)
        return file

    route_utils.NamedTemporaryFile = make_noted_file
