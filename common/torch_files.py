"""Files of torch.save → tensors and plain values, without running code and without expanding.

torch.load(weights_only=True) runs no code either. But it checks no checksum, so a flipped bit changes a weight unseen,
and a small file can make it copy gigabytes or calculate for ever. Here the pickle in the file may only build dicts,
lists, tuples, tensors and plain values, each of its bytes at a cost that is bounded, and every entry of the zip must
have its CRC. Memory is at most the file's size for the tensors, and a few hundred bytes for each byte of `MAX_PICKLE`.
"""

import io
import math
import pickle
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

MAX_PICKLE = 2 << 20  # bytes of what is no tensor; 1 MB names all tensors of XLS-R 2B, its averages and its optimizer
MAX_DIRECTORY = 16 << 20  # bytes of the zip's list of entries
MAX_VALUES, MAX_DEPTH = 1_000_000, 32  # of the content; a list that stands in two places counts twice
TORCH_1_5 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"  # how files of torch before 1.6 begin

DTYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip
# Of the opcodes that torch.save writes, those for which pickle's own methods do a bounded amount of work.
OPCODES = (
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING EMPTY_DICT "
    "EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL "
    "BINPERSID"
)


def read_torch(data: bytes) -> Any:
    """What torch.save wrote, tensors on the CPU. Raises ValueError when it is anything else or damaged."""
    try:
        content = _read_old(data) if data.startswith(TORCH_1_5) else _read_zip(data)
        _require_small(content)
    except Exception as error:  # what a made-up pickle can raise has no other common base
        raise ValueError(str(error).split("\n")[0][:200] or type(error).__name__) from error
    return content


def _read_zip(data: bytes) -> Any:
    entries = _checked_entries(data)
    (name,) = (name for name in entries if name.endswith("/data.pkl"))
    root = name.removesuffix("data.pkl")
    if bytes(entries.get(f"{root}byteorder", b"little")) != b"little":
        raise ValueError("numbers with the high byte first")
    if len(entries[name]) > MAX_PICKLE:
        raise ValueError(f"{len(entries[name])} bytes beside the tensors")

    def storage(key: str, size: int) -> Tensor:
        return _tensor_of(entries[f"{root}data/{key}"], size)

    return _Unpickler(io.BytesIO(entries[name]), storage).load()


def zip_entries(data: bytes) -> list[zipfile.ZipInfo]:
    """The list of entries, of a bounded length. Raises BadZipFile, ValueError or NotImplementedError."""
    return zipfile.ZipFile(_Directory(data)).infolist()


def _checked_entries(data: bytes) -> dict[str, memoryview]:
    """The content of each entry. Raises ValueError unless all are stored, apart from each other, and have their CRC."""
    entries = zip_entries(data)
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size for entry in entries):
        raise ValueError("compressed entries")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ValueError("entries that share bytes")
    found = {}
    for entry in entries:
        head = data[entry.header_offset : entry.header_offset + 30]
        start = entry.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:], "little")
        content = memoryview(data)[start : start + entry.file_size]
        if entry.filename in found or len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise ValueError(f"damaged: {entry.filename} has another CRC")
        found[entry.filename] = content
    return found


class _Directory(io.BytesIO):
    """A zip for the constructor of ZipFile, which shall read no more than a list of entries of a sensible length."""

    def read(self, size: int = -1) -> bytes:
        content = super().read(min(MAX_DIRECTORY, size) if size >= 0 else MAX_DIRECTORY)
        if len(content) == MAX_DIRECTORY:
            raise zipfile.BadZipFile("a list of too many entries")
        return content


def _read_old(data: bytes) -> Any:
    """The format before torch 1.6: pickles, the last of which names the storages that follow. It has no checksums."""
    file, storages = io.BytesIO(data[:MAX_PICKLE]), {}
    left = len(data)

    def storage(key: str, size: int) -> Tensor:
        nonlocal left
        left -= size
        if left < 0:
            raise ValueError("tensors that are not in the file")
        storages[key] = torch.empty(size, dtype=torch.uint8)
        return storages[key]

    _magic, _version, _system, content, names = (_Unpickler(file, storage).load() for _ in range(5))
    position = file.tell()
    for name in names:
        size = len(storages[name])
        storages[name].copy_(_tensor_of(data[position + 8 : position + 8 + size], size))
        position += 8 + size
    return content


def _tensor_of(content: bytes | memoryview, size: int) -> Tensor:
    """A copy of `size` bytes, in memory that torch aligns. Raises ValueError when there are not so many."""
    if len(content) != size:
        raise ValueError(f"a tensor of {size} bytes has {len(content)} in the file")
    tensor = torch.empty(size, dtype=torch.uint8)
    tensor.numpy()[:] = np.frombuffer(content, np.uint8)
    return tensor


class _Unpickler(pickle._Unpickler):  # in Python, because the one in C cannot be told which opcodes to refuse
    """storage: gives the bytes, a tensor (N,) uint8, of a storage's name and size."""

    def __init__(self, file: io.BytesIO, storage: Callable[[str, int], Tensor]):
        super().__init__(file, encoding="utf-8")
        self.storage, self.storages = storage, {}

    def find_class(self, module: str, name: str) -> Any:
        dtype = DTYPES.get(name.removesuffix("Storage")) if module == "torch" else None
        if dtype is None and f"{module}.{name}" not in FUNCTIONS:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return dtype or FUNCTIONS[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage, as a tensor (N,) of its type."""
        kind, dtype, key, _location, count, *view = pid
        if kind != "storage" or type(key) is not str or type(count) is not int or count < 0 or any(view):
            raise ValueError("a storage that is none")
        if key not in self.storages:
            self.storages[key] = self.storage(key, count * dtype.itemsize)
        return self.storages[key].view(dtype)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack.pop()
        if type(arguments) is not tuple or function not in FUNCTIONS.values():
            raise pickle.UnpicklingError("a call of something else than a tensor's parts")
        self.append(function(*arguments))

    def load_build(self) -> None:
        """Leave out attributes of a dict, where torch keeps versions of layers."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("attributes of a tensor")

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, items: list) -> None:
        if type(self.stack[-1]) is not dict or not all(type(key) in (str, int) for key in items[::2]):
            raise pickle.UnpicklingError("keys that are neither text nor numbers")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch: ClassVar = {
        **{code: pickle._Unpickler.dispatch[code] for code in (getattr(pickle, name)[0] for name in OPCODES.split())},
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_gradient_and_hooks: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2, for tensors that are within their storage and have no more elements than it."""
    numbers = (offset, *size, *stride)
    if len(numbers) > 64 or len(size) != len(stride) or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers):
        raise ValueError(f"a tensor of shape {str(size)[:60]}")
    count, last = math.prod(size), offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > len(storage) or (count and last >= len(storage)):
        raise ValueError(f"a tensor of {count} elements on {len(storage)}")
    return torch.empty(0, dtype=storage.dtype).set_(storage.untyped_storage(), offset, size, stride)


def _first(value: Any, *_: Any) -> Any:
    return value


def _empty() -> dict:
    return {}


FUNCTIONS = {
    "collections.OrderedDict": _empty,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch.Size": _first,
    "torch.device": _first,
}


def _require_small(content: Any) -> None:
    """Raises ValueError when there is too much in it: a small pickle can put lists into each other again and again."""
    level, values = [content], 0
    for _ in range(MAX_DEPTH):
        nested = []
        for part in level:
            inner = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
            values += len(inner)
            if values > MAX_VALUES:
                raise ValueError(f"more than {MAX_VALUES} values")
            nested += [value for value in inner if isinstance(value, dict | list | tuple)]
        level = nested
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels of values")
