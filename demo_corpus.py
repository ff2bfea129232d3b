"""Make a small synthetic corpus in the ASVspoof2019 LA layout: the whole pipeline can be tried without a download.

    python demo_corpus.py
    python demo_corpus.py --output_dir demo_corpus --seed 1234 --utterances 240 100 130 --speakers 12

Bona fide is a source-filter talker (irregular glottal pulses, breath, moving formants, a room); spoof is other
utterances of the same talkers through vocoders: A01-A06 in train and dev, others (A07-A12) in eval. The talkers of
train, dev and eval are disjoint. Level, length, margins of silence, microphone, band limit and noise floor come after
the vocoder, and each bona fide utterance shares them with a spoofed one, so that only the vocoder gives a spoof away.

This is a stand-in that proves the pipeline (data, training, selection, metrics, plots). It is no claim about deepfakes:
both classes are synthetic, and an EER on this corpus says nothing about any other.
"""

from common.command import run
from corpora.demo import main

if __name__ == "__main__":
    run(main)
