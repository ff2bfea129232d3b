"""Read and write `.conf` files: YAML, so the official JSON files load too.

config = load_config("config/AASIST.conf")
"""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.files import write_text
from common.schema import parse
from config.schema import INCIDENTAL, Config

MAX_CONFIG_BYTES = 1 << 17  # a second's work for the parser; our own files have 2 kB
# The official RawNet2 file repeats two values of optim_config at the top, where the official code never reads them.
OFFICIAL_REPETITIONS = {"lr": "base_lr", "weight_decay": "weight_decay"}


def load_config(path: str | Path) -> Config:
    """Read and check a `.conf` file. Raises UserError with the file, the key, what was expected and what was found."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise UserError("too large", f"at most {MAX_CONFIG_BYTES} bytes", "more")
        # JSON allows tabs between tokens and YAML does not. Strings in a config are not expected to hold tabs.
        values = yaml.load(text.decode("utf-8-sig").expandtabs(), _Loader)
        return parse(Config, _without_repetitions(values))
    except OSError as error:
        raise UserError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not YAML or JSON: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _without_repetitions(values: Any) -> Any:
    """`values` without top-level keys that repeat optim_config. A key with another value stays and is refused."""
    optim = values.get("optim_config") if isinstance(values, dict) else None
    if not isinstance(optim, dict):
        return values
    repeated = {key for key, twin in OFFICIAL_REPETITIONS.items() if key in values and values[key] == optim.get(twin)}
    return {key: value for key, value in values.items() if key not in repeated}


def save_config(config: Config, path: str | Path) -> None:
    """Write `config` with all defaults, for `load_config`."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=120))


def to_dict(config: Config) -> dict:
    """`config` as plain values (tuples become lists) for YAML, JSON and checkpoints."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(asdict(config))


def differences(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """{dotted key: (value in `one`, value in `other`)} of every key that changes a run's results, where they differ."""
    first, second = (flat(to_dict(config)) for config in (one, other))
    names = [name for name in first | second if name.split(".")[0] not in INCIDENTAL]
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}


def flat(values: dict, where: str = "") -> dict[str, Any]:
    """Nested keys as `outer.inner`."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return found


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 and refuses repeated keys and aliases: a few nested aliases expand to gigabytes."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in counts.items():
            if count > 1:
                raise yaml.YAMLError(f"key {key[:60]!r} stands twice")
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 as a string; in JSON, and to people, it is a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$", re.ASCII), list("-+0123456789.")
)
