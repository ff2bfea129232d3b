"""The web page: upload or record speech, see whether it is bona fide or spoofed and why, take the report along.

    python gradio_app.py                                                  # http://127.0.0.1:8080, this computer only
    python gradio_app.py --server_name 0.0.0.0 --auth newsroom:SECRET     # for others, too
    python gradio_app.py --models /data/checkpoints --max_minutes 120

What a file gets is decided by `Detector` and `Judge`; here it is only shown. Visitors are strangers: they choose among
checkpoints that the server found, and only what they uploaded is read, by another process. docs/webpage.md says more.
"""

from common.command import run
from webpage.page import main

if __name__ == "__main__":
    run(main)
