"""The two example recordings: one synthetic utterance of each class, made as the demo corpus is."""

import tempfile
from functools import cache
from pathlib import Path


@cache
def example_files() -> dict[str, str]:
    """Paths of a "bonafide" and a "spoof" WAV file; made once, in the temporary folder."""
    import soundfile

    from audio import SAMPLE_RATE
    from corpora.demo import DemoSettings, DemoTrial, make_utterance

    folder, settings = Path(tempfile.mkdtemp()), DemoSettings(1234, 12, (240, 100, 130))
    paths = {name: str(folder / f"made_up_{name}.wav") for name in ("bonafide", "spoof")}
    for name, attack in (("bonafide", "-"), ("spoof", "A01")):
        soundfile.write(paths[name], make_utterance(settings, DemoTrial("train", 1, 0, 1, attack)), SAMPLE_RATE)
    return paths
