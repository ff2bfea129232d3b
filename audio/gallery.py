"""Draw what each augmentation does to a recording, and save the versions to listen to.

    python -m audio.gallery speech.flac --output gallery.png --save folder

The figure has a spectrogram of the original and of each version; docs/augmentation.md explains the transforms.
"""

import re
import sys
from pathlib import Path

import numpy as np

from audio import SAMPLE_RATE
from audio.augmentation import build_augmentation
from audio.chunks import CHUNK_SAMPLES
from audio.reading import read
from common.command import Parser, run
from common.errors import UserError
from common.files import replacing

# Settings strong enough to be seen.
EXAMPLES = {
    "rawboost, lnl+isd": {"name": "rawboost", "combination": "lnl+isd"},
    "rawboost, ssi": {"name": "rawboost", "combination": "ssi", "snr": [15, 15]},
    "codec, mu_law": {"name": "codec", "formats": ["mu_law"]},
    "codec, amr_nb 4.75 kbit/s": {"name": "codec", "formats": ["amr_nb"], "bitrates": [4.75, 4.75]},
    "codec, mp3 16 kbit/s": {"name": "codec", "formats": ["mp3"], "bitrates": [16, 16]},
    "codec, aac 16 kbit/s": {"name": "codec", "formats": ["aac"], "bitrates": [16, 16]},
    "codec, opus 8 kbit/s": {"name": "codec", "formats": ["opus"], "bitrates": [8, 8]},
    "band, 300–5000 Hz": {"name": "band", "lowest": [300, 300], "highest": [5000, 5000], "order": [8, 8]},
    "noise, pink, 10 dB": {"name": "noise", "colours": ["pink"], "snr": [10, 10]},
    "room, 0.8 s": {"name": "room", "rt60": [0.8, 0.8], "drr": [-3, -3]},
    "speed, 0.9": {"name": "speed", "ratio": [0.9, 0.9]},
    "silence, cut": {"name": "silence", "cut": [1, 1]},
    "clipping, 5 %": {"name": "clipping", "share": [0.05, 0.05]},
    "time_mask": {"name": "time_mask", "count": 4, "seconds": [0.15, 0.2]},
    "frequency_mask": {"name": "frequency_mask", "hertz": [600, 1000]},
}


def main() -> int:
    """Command line."""
    from plots.datasets import augmentation_gallery
    from plots.style import write_figure

    parser = Parser(prog="python -m audio.gallery", description=__doc__)
    parser.add_argument("file", type=Path, help="an audio file of speech; its first 4 s are shown")
    parser.add_argument("--output", type=Path, required=True, help="the figure, a .png or .pdf file")
    parser.add_argument("--save", type=Path, metavar="DIR", help="also write each version as a wav file, to listen to")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same figure (default: %(default)s)")
    options = parser.parse_args()
    if options.output.suffix not in (".png", ".pdf"):
        raise UserError("--output", "a .png or .pdf file", options.output)
    if options.seed < 0:
        raise UserError("--seed", "0 or more", options.seed)
    versions = augmented_versions(read(options.file)[:CHUNK_SAMPLES], options.seed)
    figure = augmentation_gallery(versions, SAMPLE_RATE)
    write_figure(figure, options.output.with_suffix(""), [options.output.suffix[1:]])
    if options.save:
        save_versions(versions, options.save)
    return 0


def augmented_versions(speech: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """`speech` (n,) and, by title, what each of `EXAMPLES` makes of it."""
    versions = {"original": speech}
    for title, spec in EXAMPLES.items():
        augmentation, rng = build_augmentation([spec]), np.random.default_rng(seed)
        versions[title] = augmentation.crop(augmentation.whole(speech, rng), rng)
    return versions


def save_versions(versions: dict[str, np.ndarray], folder: Path) -> None:
    """Write each version as a wav file of floats, which can exceed full scale."""
    import soundfile

    for number, (title, samples) in enumerate(versions.items()):
        name = re.sub(r"\W+", "_", title).strip("_")
        with replacing(folder / f"{number:02}_{name}.wav") as path:
            soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")


if __name__ == "__main__":
    sys.exit(run(main))
