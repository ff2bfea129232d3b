"""Configuration: the typed schema, and the `.conf` files that are read into it.

config = load_config("config/AASIST.conf")
"""

from config.files import differences, flat, load_config, save_config, to_dict
from config.schema import ANGULAR, INCIDENTAL, MAX_EPOCHS, Config, LossConfig, OptimConfig, SWAConfig

__all__ = [
    "ANGULAR",
    "INCIDENTAL",
    "MAX_EPOCHS",
    "Config",
    "LossConfig",
    "OptimConfig",
    "SWAConfig",
    "differences",
    "flat",
    "load_config",
    "save_config",
    "to_dict",
]
