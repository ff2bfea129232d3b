"""Data sets as they unpack → partitions of trials."""
