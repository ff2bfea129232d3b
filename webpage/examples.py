"""The example recordings of the page; example_clips/README.md says where they come from."""

from pathlib import Path

FOLDER = Path(__file__).parent / "example_clips"
EXAMPLES = {  # file name → what its button says
    "genuine_novel": "Genuine: a novel",
    "genuine_sonnet": "Genuine: a sonnet",
    "synthetic_espeak": "Synthetic: eSpeak",
    "synthetic_vocoder": "Synthetic: the novel, rebuilt by a vocoder",
    "synthetic_piper": "Synthetic: a neural voice, often missed",
}


def example(name: str) -> str:
    """The path of an example."""
    return str(FOLDER / f"{name}.flac")
