"""Seeds, device and precision, checkpoints; and what a checkpoint file holds.

python utils.py inspect models/weights/Whisper-broad.pth
"""

import hashlib
import os
import pickle
import random
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from common.files import replacing
from common.memory import read_regular
from common.schema import is_plain
from common.torch_files import TORCH_1_5, read_torch, zip_entries
from config import Config, load_config
from models import build_model
from models.published import describe_unknown, read_published

# On a CPU the kernel clears the pages of every large tensor, which takes longer than the model; huge pages halve that.
# torch reads this variable at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

CHECKPOINT_FORMAT = 1
SLACK = 1_000_000  # elements of a model's tensors that are not in its checkpoint
CONFIGS = Path(__file__).parent / "config"
# Where other people's code keeps the weights in a checkpoint, and what it puts before their names: DataParallel and
# AveragedModel, torch.compile, Lightning.
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
# How files begin that are no checkpoint, and what to do.
OTHER_FILES = {
    b"version https://git-lfs": "a git-lfs pointer (`git lfs pull` fetches the file itself)",
    b"<": "a web page (the download did not work; try it in a browser)",
    b"\x80": "a pickle without torch's header (ask for the weights as torch.save or safetensors writes them)",
    b"\x89HDF": "an HDF5 file, of Keras perhaps (detectors here are torch's)",
    b"\x1f\x8b": "a gzip archive (unpack it first)",
    b"PAR1": "a Parquet file, no weights",
}
MAX_BYTES = 64 << 30  # of a checkpoint; last.pth of the largest encoder, XLS-R 2B, has 35e9


# ---------------------------------------------------------------------------------------------------- determinism


def seed_everything(config: Config) -> None:
    """Seed every generator, and choose algorithms as `config` says."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 — what third-party code draws from
    torch.manual_seed(config.seed)
    torch.backends.cudnn.deterministic = config.deterministic or config.cudnn_deterministic_toggle
    torch.backends.cudnn.benchmark = config.cudnn_benchmark_toggle and not config.deterministic
    # Only a warning: torch refuses max-pooling's backward pass, as windows may overlap. Ours do not.
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    warnings.filterwarnings("ignore", message="max_pool2d_with_indices_backward")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid, and slow


def rng_state() -> dict:
    """State of torch's generators; a run resumed with it draws the same dropout and masks."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    """Set torch's generators; with another number of GPUs a note says that dropout goes on differently."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        torch.cuda.set_rng_state_all(state["cuda"])
    else:
        print("note: saved with another number of GPUs: dropout goes on differently", file=sys.stderr)


def pick_device(name: str | torch.device) -> torch.device:
    """The device `cpu`, `cuda` or `auto` (CUDA if there is a GPU; under torchrun each process has its own).

    Raises UserError when CUDA is asked for and missing.
    """
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no CUDA device", "a GPU that torch can use, or --device cpu", f"torch {torch.__version__}")
    name = str(name) if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the default for code that names no GPU
    return device


def set_precision(precision: str, device: torch.device) -> None:
    """Allow a GPU to round fp32 factors to 19 bits only with `tf32`; by default torch does it in convolutions.

    Prints a note on stderr where a precision gains nothing on this device.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if device.type == "cpu" and precision == "tf32":
        print("note: a CPU has no tf32: computing in fp32", file=sys.stderr)
    if device.type == "cpu" and precision == "bf16" and not computes_bf16():
        print("note: this CPU emulates bf16, which takes ten times as long as fp32", file=sys.stderr)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Inside, a GPU computes fp32 as it is."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def computes_bf16() -> bool:
    """Whether the CPU has instructions for bf16; assumed where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else "bf16"
    return "bf16" in flags  # avx512_bf16, amx_bf16, on ARM bf16


def peak_memory(device: torch.device) -> int | None:
    """Peak memory of this process in bytes, the GPU's or else the machine's; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(path: str | os.PathLike, fields: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all; equal fields give equal bytes."""
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
    ):  # given a path, torch stores its temporary name in the file
        try:
            torch.save({"format": CHECKPOINT_FORMAT, **fields}, file)
        except RuntimeError as error:  # torch hides the system's error, such as a full disk
            raise UserError(f"cannot write {path}: {error.__context__ or error}") from error


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint's fields; of another project's file, bare or wrapped, {model: state dict, config: None}.

    Tensors are on the CPU; the file's `sha256` is added. Nothing in the file is executed, and reading it takes no more
    memory than twice its size (see `common.torch_files`). Raises UserError when it is no checkpoint, or damaged.
    """
    data = _read_checkpoint_file(path)
    try:
        content = _read_safetensors(data) if _is_safetensors(data) else read_torch(data)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        found = f"a pickle of code ({code[1]}); ask for its state dict" if code else str(error).split("\n")[0][:200]
        raise UserError(f"cannot load checkpoint {path}", "tensors and plain values only", found) from error
    if not isinstance(content, dict):
        raise UserError(f"cannot load checkpoint {path}", "a dict", type(content).__name__)
    if "format" not in content:
        content = _foreign_checkpoint(content, path)
    elif content["format"] != CHECKPOINT_FORMAT or not {"model", "config"} <= content.keys():
        raise UserError(f"checkpoint {path} has another format", CHECKPOINT_FORMAT, str(content["format"])[:60])
    else:
        _require_types(content, path)
    return {**content, "sha256": hashlib.sha256(data).hexdigest()}


def load_model(path: str | os.PathLike) -> tuple[nn.Module, dict[str, Any]]:
    """The model in a checkpoint, in evaluation mode on the CPU, and the checkpoint's fields. Raises UserError."""
    checkpoint = load_checkpoint(path)
    if checkpoint["config"] is None:
        checkpoint["config"] = {"model_config": recognise(checkpoint["model"], path)}
    model_config = checkpoint["config"]["model_config"]
    if model_config.get("encoder") and not model_config.get("encoder_config"):  # it would be downloaded
        raise UserError(f"checkpoint {path} lacks the encoder's architecture", "model_config.encoder_config", "none")
    tensors = [x.untyped_storage() for x in checkpoint["model"].values() if isinstance(x, torch.Tensor)]
    size = sum({storage.data_ptr(): storage.nbytes() for storage in tensors}.values())
    try:
        model = build_model(model_config, most=size // 2 + SLACK)  # two bytes an element, or more
    except UserError as error:
        raise UserError(f"checkpoint {path}: {error}") from error
    load_weights(model, checkpoint, path)
    return model.eval(), checkpoint


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: str | os.PathLike) -> None:
    """Load a checkpoint's weights strictly. Raises UserError naming the first tensor that differs."""
    weights, own = checkpoint["model"], model.state_dict()
    for name in [*own, *weights]:
        found = tuple(weights[name].shape) if isinstance(weights.get(name), torch.Tensor) else "no tensor"
        expected = tuple(own[name].shape) if name in own else "no tensor"
        if found != expected:
            raise UserError(f"checkpoint {path} is of another architecture: {name}", expected, found)
    model.load_state_dict(weights, strict=True)


def recognise(weights: dict[str, Any], path: str | os.PathLike) -> dict:
    """`model_config` of the `config/*.conf` whose model has tensors of these names and shapes. Raises UserError.

    Models with a self-supervised encoder are not tried, because it would be downloaded.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
    configs = {conf.stem: load_config(conf).model_config for conf in sorted(CONFIGS.glob("*.conf"))}
    known = {name: model_config for name, model_config in configs.items() if "encoder" not in model_config}
    for model_config in known.values():
        own = build_model(model_config).state_dict()
        if shapes == {name: tuple(tensor.shape) for name, tensor in own.items()}:
            return model_config
    expected = f"tensors of {', '.join(known)}, or of a detector in docs/models.md"
    raise UserError(f"checkpoint {path} is of no known architecture", expected, describe_unknown(weights))


def _foreign_checkpoint(content: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    """{model, config} of another project's file; config None where the names are ours. Raises UserError.

    A detector that `models/published.py` knows gets our names, and `unused` has its tensors without a use here.
    """
    weights = bare_weights(content)
    tensors = {name: x for name, x in weights.items() if isinstance(x, torch.Tensor)}
    try:
        found = read_published(tensors, str(path))
    except (KeyError, ValueError, IndexError, ZeroDivisionError, TypeError) as error:
        raise UserError(f"checkpoint {path} is not whole", "all tensors of its detector", f"none at {error}") from error
    if found is None:
        return {"model": weights, "config": None}
    if found.note:
        print(printable(f"note: {path}: {found.note}"), file=sys.stderr)
    return {"model": found.weights, "config": {"model_config": found.model_config}, "unused": found.unused}


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and 8 < 8 + int.from_bytes(data[:8], "little") <= len(data)


def _read_safetensors(data: bytes) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(error) from error


def _read_checkpoint_file(path: str | os.PathLike) -> bytes:
    """The file's bytes: safetensors, or as torch.save writes them.

    Raises UserError for other files, TorchScript and compressed entries.
    """
    try:
        data = read_regular(path, MAX_BYTES)
        if _is_safetensors(data) or data.startswith(TORCH_1_5):
            return data
        entries = zip_entries(data)
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        found = next((what for head, what in OTHER_FILES.items() if data[:99].lstrip().startswith(head)), error)
        raise UserError(f"cannot load checkpoint {path}", "a file of torch.save (zip)", found) from error
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        found = "TorchScript, which is code (where you trust it: torch.save(torch.jit.load(FILE).state_dict(), OTHER))"
        raise UserError(f"cannot load checkpoint {path}", "tensors and plain values only", found)
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
        raise UserError(f"cannot load checkpoint {path}", "stored entries as torch.save writes", "compressed ones")
    return data


def _require_types(content: dict[str, Any], path: str | os.PathLike) -> None:
    """Raises UserError unless `config` and `model` are what the rest of the code takes them for."""
    config, dev_eer = content["config"], content.get("dev_eer")
    if not isinstance(content["model"], dict) or not (is_plain(config) and isinstance(config, dict)):
        raise UserError(f"cannot load checkpoint {path}", "a dict of tensors, and a config of plain values", "others")
    if not isinstance(config.get("model_config"), dict):
        raise UserError(f"cannot load checkpoint {path}", "a config with model_config", "none")
    if dev_eer is not None and not (type(dev_eer) is float and 0 <= dev_eer <= 1):
        raise UserError(f"cannot load checkpoint {path}", "a dev_eer from 0 to 1", str(dev_eer)[:60])


def bare_weights(content: dict[str, Any]) -> dict[str, Any]:
    """The state dict in a checkpoint of another project, without wrapper and prefixes."""
    wrapped = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    weights = {str(name): tensor for name, tensor in wrapped.items() if name != "n_averaged"}
    while prefix := next((p for p in PREFIXES if weights and all(name.startswith(p) for name in weights)), None):
        weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    return weights


# ------------------------------------------------------------------------------------------------------------ command


def describe_checkpoint(path: str | os.PathLike) -> str:
    """What a checkpoint holds, a line for each fact. Raises UserError."""
    model, checkpoint = load_model(path)
    config, count = checkpoint["config"], sum(p.numel() for p in model.parameters())
    facts = {"architecture": config["model_config"]["architecture"], "parameters": f"{count:,}"}
    if "database_path" in config:
        paths = config["database_path"]  # one string in checkpoints of older versions
        facts["trained on"] = " ".join(map(str, paths)) if isinstance(paths, list) else paths
    if checkpoint.get("dev_eer") is not None:
        facts["dev EER"] = f"{100 * checkpoint['dev_eer']:.3f} %"
    facts |= {name: checkpoint[name] for name in ("epoch", "threshold", "calibration") if name in checkpoint}
    facts |= {"fields": ", ".join(sorted(map(str, checkpoint))), "SHA-256": checkpoint["sha256"]}
    return "\n".join(f"{name:<13} {printable(value)}" for name, value in facts.items())


def main() -> None:
    parser = Parser(prog="utils.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="print what a checkpoint file holds")
    inspect.add_argument("checkpoint", metavar="FILE")
    print(describe_checkpoint(parser.parse_args().checkpoint))


if __name__ == "__main__":
    run(main)
