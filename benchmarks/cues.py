"""How far single cues tell the classes of a training set apart: as recorded, and as a recipe trains on them.

    python benchmarks/cues.py --config config/LCNN-mixed.conf

Prints a table of EERs in percent; 50 tells nothing. docs/check_data.md defines the cues. They are measured on the
random crops of one epoch.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import soundfile
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from audio import SAMPLE_RATE
from common.command import run
from config import Config, load_config
from corpora.cues import CueEER, cue_eers, measure_file
from corpora.open import open_partition
from corpora.waveforms import Waveforms
from data_utils import open_waveforms, train_loader
from metrics.scores import BONAFIDE


def crop_cues(waveforms: Waveforms, length: int, config: Config) -> dict[str, CueEER]:
    """Of one epoch's crops."""
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crop.wav"
        for batch in train_loader(waveforms, length, config, epoch=0):
            for crops, labels in batch.micro_batches:
                for x, label in zip(crops.numpy(), labels.tolist(), strict=True):
                    soundfile.write(path, x, SAMPLE_RATE, "FLOAT")
                    measured.append((label == BONAFIDE, measure_file(path)))
    return cue_eers(measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "LCNN-mixed.conf")
    config = load_config(parser.parse_args().config)
    plain = replace(config, augmentation=(), vocode=(), balance=())
    train, length = open_partition(config.database_path, config.track, "train"), config.model_config["nb_samp"]
    both = [open_waveforms(p, config, torch.device("cpu")) for p in (train, train.with_vocoded(config.vocode))]
    found = [crop_cues(p, length, c) for p, c in zip(both, (plain, config), strict=True)]
    print("| cue of a crop | as recorded | as trained on |\n|---|---|---|")
    for name in found[0]:
        print(f"| {name} | {' | '.join(f'{100 * each[name].eer:.0f}' if name in each else '–' for each in found)} |")


if __name__ == "__main__":
    run(main)
