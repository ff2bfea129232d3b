"""The web page: upload or record speech, see whether it is likely genuine or synthetic and why, download a report.

    python gradio_app.py                                                  # http://127.0.0.1:8080, this computer only
    python gradio_app.py --server_name 0.0.0.0 --auth newsroom:SECRET     # for others too, with a password
    python gradio_app.py --models /data/checkpoints --max_minutes 120

The page shows what `Detector` and `Judge` decide. Visitors are strangers: they choose among the checkpoints that the
server found, and only their own uploads are read, by another process. docs/webpage.md says more.
"""

import signal
import sys
from pathlib import Path

from common.command import Parser, run
from common.errors import UserError
from scoring.weights import BUNDLED
from webpage.checkpoints import ModelShelf
from webpage.guard import THIS_COMPUTER
from webpage.jobs import FileChecker
from webpage.limits import PageLimits
from webpage.page import Page
from webpage.server import Address, listening, serve_until_stopped
from webpage.storage import temporary_files


def parse_arguments():
    parser, defaults = Parser(description=__doc__), PageLimits()
    add = parser.add_argument
    add("--port", type=int, default=8080, help="(default: %(default)s)")
    add(
        "--server_name",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0: all networks (default: this computer only)",
    )
    add("--share", action="store_true", help="also at a public address of gradio's makers, who can then see everything")
    add("--auth", metavar="USER:PASS", help="ask visitors for this name and password")
    add("--proxy", action="store_true", help="a proxy stands in front: believe its X-Forwarded-Host, -Proto and -For")
    add("--models", nargs="+", type=Path, default=[], metavar="DIR", help="more folders of checkpoints")
    add("--model", default=BUNDLED, metavar="LABEL", help="model that is selected at first (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device that is selected at first")
    add(
        "--max_minutes", type=float, default=defaults.recording_minutes, help="longest recording (default: %(default)s)"
    )
    add("--max_mb", type=float, default=defaults.upload_mb, help="largest upload (default: %(default)s)")
    add(
        "--keep_minutes",
        type=float,
        default=defaults.keep_minutes,
        help="keep uploads and results for so long after their last use (default: %(default)s)",
    )
    args = parser.parse_args()
    fit = all(0 < limit <= 1e6 for limit in (args.max_minutes, args.max_mb, args.keep_minutes))
    if not 1 <= args.port <= 65535 or not fit:
        parser.error("--port must be in 1 … 65535, --max_minutes, --max_mb and --keep_minutes above 0, up to a million")
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error("--auth: expected USER:PASS")
    for folder in args.models:
        if not folder.is_dir():
            raise UserError(f"--models {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    return args


def main() -> int:
    args = parse_arguments()
    if not args.auth and (args.share or args.server_name not in THIS_COMPUTER):
        print("warning: without --auth anybody who reaches this address can use the page", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as on Ctrl-C
    limits = PageLimits(args.max_mb, args.max_minutes, args.keep_minutes)
    auth = tuple(args.auth.split(":", 1)) if args.auth else None
    with temporary_files() as uploads:
        models = ModelShelf(args.models)
        if args.model not in models.checkpoints:
            raise UserError(f"--model {args.model}", "one of " + ", ".join(models.checkpoints), "no such label")
        page = Page(FileChecker(models, limits.recording_seconds), args.model, args.device, limits.keep_seconds)
        address = Address(args.server_name, args.port, auth, args.share, args.proxy)
        with listening(page, address, uploads, limits.upload_bytes):
            print(f"http://{args.server_name}:{args.port}", flush=True)
            serve_until_stopped(page, args.model, uploads)
    return 0


if __name__ == "__main__":
    run(main)
