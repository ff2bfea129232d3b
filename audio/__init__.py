"""Any audio file → 16 kHz → chunks; augmentation, vocoders and a synthetic talker."""

SAMPLE_RATE = 16_000  # Hz, of every waveform in this repository
