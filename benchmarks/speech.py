"""In how many files the voice activity detector finds speech, beside WebRTC's (pip install webrtcvad-wheels), if there.

python benchmarks/speech.py --speech ../shared/data/*/flac --no_speech sounds/
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audio import SAMPLE_RATE
from audio.reading import read
from audio.speech import SpeechDetector
from scoring.audio_files import files_in_folder
from scoring.conditions import MIN_SPEECH_SECONDS


def silero_seconds(samples: np.ndarray) -> float:
    detector = SpeechDetector()
    detector.add(samples)
    detector.end()
    return detector.seconds()


def webrtc_seconds(samples: np.ndarray, mode: int = 3) -> float:
    """Its strictest mode, in frames of 30 ms."""
    import webrtcvad

    detector, frame = webrtcvad.Vad(mode), 480
    frames = (np.clip(samples, -1, 1) * 32767).astype("<i2")[: len(samples) // frame * frame].reshape(-1, frame)
    return sum(detector.is_speech(one.tobytes(), SAMPLE_RATE) for one in frames) * frame / SAMPLE_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", nargs="*", default=[], type=Path, metavar="DIR")
    parser.add_argument("--no_speech", nargs="*", default=[], type=Path, metavar="DIR")
    parser.add_argument("--most", type=int, default=200, help="files of each folder")
    args = parser.parse_args()
    for kind, folders in (("speech", args.speech), ("no speech", args.no_speech)):
        files = [file for folder in folders for file in files_in_folder(folder, True)[: args.most]]
        found = {"Silero": 0, "WebRTC": 0}
        for file in files:
            samples = read(file)
            for name, measure in (("Silero", silero_seconds), ("WebRTC", webrtc_seconds)):
                try:
                    heard = measure(samples) >= MIN_SPEECH_SECONDS
                except ImportError:
                    continue
                found[name] += heard
                if name == "Silero" and heard != (kind == "speech"):
                    print(f"  {kind}, but not to Silero: {file}" if kind == "speech" else f"  speech to Silero: {file}")
        print(f"{kind}: {len(files)} files; speech in {found}")


if __name__ == "__main__":
    main()
