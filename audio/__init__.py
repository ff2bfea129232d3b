"""Any file → 16 kHz → chunks, and what may happen to a waveform."""

SAMPLE_RATE = 16_000  # Hz, of every waveform here
