"""Every figure: arrays in, `Figure` out."""
