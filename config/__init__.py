"""Configuration: the typed schema, and the `.conf` files that are read into it.

config = load_config("config/AASIST.conf")
"""

from config.files import differences, load_config, save_config, to_dict
from config.schema import ANGULAR, INCIDENTAL, Config, LossConfig, OptimConfig, SWAConfig

__all__ = [
    "ANGULAR",
    "INCIDENTAL",
    "Config",
    "LossConfig",
    "OptimConfig",
    "SWAConfig",
    "differences",
    "load_config",
    "save_config",
    "to_dict",
]
