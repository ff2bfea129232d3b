"""Options of the benchmarks that score data sets in the layout of ASVspoof2019 with a detector of one's choice."""

import argparse
from pathlib import Path

from scoring.detector import Detector


def detector_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the folders of data sets and the options of `chosen_detector`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="AASIST")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="fp32")
    return parser


def chosen_detector(args: argparse.Namespace) -> Detector:
    return Detector.from_checkpoint(args.model, "cpu", args.engine, args.precision)
