"""Mutated checkpoints: flipped bits, other types and shapes, cut files, tricks with zip files and pickles.

    PYTHONPATH=.:tests python -c "import mutations; mutations.main(1000)"

Each is scored below 8 GB of memory, in a process of its own; prints what went wrong and a table.

test_mutations.py tries one of each kind.
"""

import copy
import io
import json
import math
import os
import pickle
import random
import resource
import signal
import sys
import time
import traceback
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import onnx
import torch
from conftest import TINY_MODEL, Malice, save_tiny
from safetensors.torch import save as save_safetensors

from common.command import run
from scoring.engine_choice import load_engine
from scoring.engines import open_exported
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx, probe_waveforms
from utils import load_model

MEMORY, SECONDS, WALL_SECONDS = 8 << 30, 10, 600
VALUES = [
    None, True, -1, 10**30, math.nan, math.inf, "text", "", [], {}, [1, [2]], {"a": 1}, {"a": math.nan, "b": 0.0},
    {"bonafide": [1.0], "spoof": ["x"]}, {"bonafide": torch.zeros(2, 2), "spoof": torch.zeros(1)},
    torch.tensor(math.nan), {"model_config": 3}, {"model_config": {"architecture": ["AASIST"]}}, "x" * 100_000,
]  # fmt: skip
SIZES = [0, -1, 1, 7, 200_000, 10**9, 10**12, 10**40, 1.5, "8", None, [], [1] * 5]


class Mutated(NamedTuple):
    """A file's name and bytes. refused: no command may accept it, as its tensors are not those that were saved."""

    name: str
    data: bytes
    refused: bool = True
    hole: int = 0  # bytes that nothing was written to, before the data


class Mutations:
    """Mutations of a tiny model in every format; `random` decides all of them."""

    def __init__(self, folder: Path, seed: int):
        self.random = random.Random(seed)
        path = save_tiny(folder / "sound.pth", dev_eer=0.25, epoch=3)
        model, checkpoint = load_model(path)
        export_onnx(model, ModelCard.of(checkpoint, path), folder / "sound.onnx")
        self.pth, self.onnx = path.read_bytes(), (folder / "sound.onnx").read_bytes()
        self.fields = torch.load(path, weights_only=True)
        self.safetensors = save_safetensors(self.fields["model"])

    KINDS = (
        "flip_in_tensor", "flip_anywhere", "cut", "field", "config", "tensor", "zip_trick", "pickle_trick", "opcode",
        "sparse", "onnx_flip", "onnx_cut", "onnx_card", "onnx_graph", "safetensors_header", "safetensors_cut",
    )  # fmt: skip

    def make(self, kind: str) -> Mutated:
        return getattr(self, kind)()

    # ------------------------------------------------------------------------------------------------- torch.save

    def flip_in_tensor(self) -> Mutated:
        with zipfile.ZipFile(io.BytesIO(self.pth)) as archive:
            entry = self.random.choice([e for e in archive.infolist() if "/data/" in e.filename and e.file_size])
        extra = int.from_bytes(self.pth[entry.header_offset + 28 : entry.header_offset + 30], "little")
        start = entry.header_offset + 30 + len(entry.filename) + extra
        return Mutated("a.pth", self._flipped(self.pth, start, start + entry.file_size))

    def flip_anywhere(self) -> Mutated:
        return Mutated("a.pth", self._flipped(self.pth, 0, len(self.pth)), refused=False)

    def cut(self) -> Mutated:
        return Mutated("a.pth", self.pth[: self.random.randrange(len(self.pth))])

    def field(self) -> Mutated:
        name = self.random.choice([*self.fields, "epoch", "dev_min_tdcf", "seeds"])
        return Mutated("a.pth", _saved(self.fields | {name: self.random.choice(VALUES)}), refused=False)

    def config(self) -> Mutated:
        model_config = copy.deepcopy(TINY_MODEL)
        name = self.random.choice([*model_config, "output", "encoder", "encoder_config", "members"])
        value, place = model_config.get(name), model_config
        while isinstance(value, list) and self.random.random() < 0.8:
            place, name = value, self.random.randrange(len(value))
            value = place[name]
        place[name] = self.random.choice(SIZES)
        if name == "architecture" or self.random.random() < 0.2:
            model_config["architecture"] = self.random.choice(["RawNet2Spoof", "LFCC_LCNN", "Ensemble", "../x", 3])
        return Mutated("a.pth", _saved(self.fields | {"config": {"model_config": model_config}}), refused=False)

    def tensor(self) -> Mutated:
        weights = dict(self.fields["model"])
        name = self.random.choice(list(weights))
        changes = {
            "none": lambda x: None, "stride 0": lambda x: torch.zeros(1).expand(2_000_000_000),
            "stride 0, right shape": lambda x: torch.zeros(()).expand(2, *x.shape), "number": lambda x: 3,
            "longer": lambda x: torch.zeros(3, *x.shape), "sparse": lambda x: torch.ones(3).to_sparse(),
            "quantised": lambda x: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
        }  # fmt: skip
        weights[name] = changes[self.random.choice(list(changes))](weights[name])
        return Mutated("a.pth", _saved(self.fields | {"model": weights}))

    def zip_trick(self) -> Mutated:
        trick = self.random.choice(["overlap", "deflated", "twice", "directory", "sizes", "comment", "huge pickle"])
        out, entries = io.BytesIO(), entries_of(self.pth)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if trick == "deflated" else zipfile.ZIP_STORED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
            if trick == "deflated":
                archive.writestr("archive/data/bomb", bytes(50_000_000))
            if trick == "overlap":
                archive.writestr("archive/data/big", bytes(1_000_000))
                archive.filelist += [_renamed(archive.filelist[-1], f"archive/data/big{n}") for n in range(400)]
            if trick == "twice":
                archive.filelist.append(copy.copy(archive.filelist[0]))
            if trick == "directory":
                archive.filelist += [_renamed(archive.filelist[-1], "x" * 60_000 + str(n)) for n in range(300)]
            if trick == "sizes":
                entry = self.random.choice(archive.filelist)
                entry.file_size = entry.compress_size = self.random.choice([0, 2**31, 2**40])
            if trick == "comment":
                archive.comment = b"PK\5\6" * 10
            if trick == "huge pickle":
                archive.writestr("archive/more/data.pkl", bytes(5_000_000))
        return Mutated("a.pth", out.getvalue(), refused=trick != "comment")

    def pickle_trick(self) -> Mutated:
        return Mutated("a.pth", zipped(entries_of(self.pth) | {"archive/data.pkl": self.random.choice(bad_pickles())}))

    def opcode(self) -> Mutated:
        """A few other bytes in the pickle, with the right CRC."""
        entries = entries_of(self.pth)
        data = bytearray(entries["archive/data.pkl"])
        for _ in range(self.random.randint(1, 3)):
            data[self.random.randrange(len(data))] = self.random.randrange(256)
        return Mutated("a.pth", zipped(entries | {"archive/data.pkl": bytes(data)}), refused=False)

    def sparse(self) -> Mutated:
        name = self.random.choice(["a.pth", "a.onnx", "a.safetensors"])
        return Mutated(name, self.pth, refused=False, hole=self.random.choice([1 << 26, 200_000_000_000]))

    # -------------------------------------------------------------------------------------------- the other formats

    def onnx_flip(self) -> Mutated:
        end = self.onnx.rindex(b"aasist")  # the card follows, whose changes are tried below
        return Mutated("a.onnx", self._flipped(self.onnx, 0, end - 20))

    def onnx_cut(self) -> Mutated:
        return Mutated("a.onnx", self.onnx[: self.random.randrange(len(self.onnx))], refused=False)

    def onnx_card(self) -> Mutated:
        model = onnx.load_model_from_string(self.onnx)
        entry = next(entry for entry in model.metadata_props if entry.key == "aasist")
        card = json.loads(entry.value)
        values = [value for value in VALUES if not isinstance(value, dict | torch.Tensor)]
        card[self.random.choice([*card, "more"])] = self.random.choice(values)
        entry.value = json.dumps(card)
        return Mutated("a.onnx", model.SerializeToString(), refused=False)

    def onnx_graph(self) -> Mutated:
        model = onnx.load_model_from_string(self.onnx)
        del model.metadata_props[2:]  # the hash, as a forger would
        trick = self.random.choice(["loop", "chunk", "rank", "dtype", "operator", "expand", "output", "endless"])
        shape = model.graph.input[0].type.tensor_type
        if trick == "loop":
            model.graph.node.add(op_type="Loop").attribute.add(name="body").g.name = "body"
        elif trick == "chunk":
            shape.shape.dim[-1].dim_value = self.random.choice([0, -5, 1 << 50, 100])
        elif trick == "rank":
            shape.shape.dim.add(dim_value=3)
        elif trick == "dtype":
            shape.elem_type = 8
        elif trick == "operator":
            self.random.choice(model.graph.node).op_type = self.random.choice(["Evil", "If", "Relu"])
        elif trick == "output":
            del model.graph.output[:]
        elif trick == "endless":
            model.graph.node[0].input[0] = model.graph.output[0].name
        else:
            size = onnx.numpy_helper.from_array(torch.tensor([1 << 20, 1 << 20]).numpy(), "size")
            model.graph.initializer.append(size)
            model.graph.node.add(op_type="Expand", input=["logits", "size"], output=["more"])
            model.graph.output[0].name = "more"
        return Mutated("a.onnx", model.SerializeToString(), refused=False)

    def safetensors_header(self) -> Mutated:
        size = 8 + int.from_bytes(self.safetensors[:8], "little")
        return Mutated("a.safetensors", self._flipped(self.safetensors, 0, size), refused=False)

    def safetensors_cut(self) -> Mutated:
        return Mutated("a.safetensors", self.safetensors[: self.random.randrange(len(self.safetensors))])

    def _flipped(self, data: bytes, first: int, end: int) -> bytes:
        place, bit = self.random.randrange(first, end), 1 << self.random.randrange(8)
        return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


def bad_pickles() -> list[bytes]:
    """Small pickles that make a careless reader run code, copy gigabytes or calculate for ever."""
    shared: list = []
    for _ in range(40):
        shared = [shared, shared]
    text = b"X" + (1_000_000).to_bytes(4, "little") + b"a" * 1_000_000 + b"q\x01"
    encode = b"c_codecs\nencode\nq\x02X\x05\0\0\0utf-8q\x030"
    contents = [
        {"format": 1, "config": {}, "model": Malice(Path("/nowhere/at/all"))},
        {"format": 1, "config": {"model_config": {"architecture": shared}}, "model": {}},
        {"format": 1, "config": {"model_config": {"architecture": "AASIST"}}, "model": shared},
        {"format": 1, "config": {"model_config": {"architecture": "AASIST"}}, "model": {"x": list(range(10))}},
    ]
    return [pickle.dumps(content, 2) for content in contents] + [
        b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".",
        b"\x80\x02]r\xff\xff\xff\xff.",  # a list in place 4,294,967,295 of the memory
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02" + text + b"0" + encode + b"](" + b"h\x02h\x01h\x03\x86R" * 100_000 + b"e.",
        b"\x80\x02})" + b"q\0h\0\x86" * 40 + b"K\1s.",  # a key of 2⁴⁰ empty tuples
        b"\x80\x02](" + b"]" * 1_000_000 + b"e.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x02\x8b\xff\xff\xff\x7f1.",
        b"\x80\x04\x95" + b"\xff" * 8 + b".",
        b"",
    ]


def _saved(fields: dict) -> bytes:
    out = io.BytesIO()
    torch.save(fields, out)
    return out.getvalue()


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def _renamed(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = copy.copy(entry)
    other.filename = other.orig_filename = name
    return other


# ------------------------------------------------------------------------------------------------------- trying them


class Outcome(NamedTuple):
    """How a process that scored with the file ended. seconds: of processor time, children included."""

    code: int
    output: str
    seconds: float


def score(path: Path, guarded: bool) -> None:
    """What `inference.py` does with a checkpoint; prints one line. guarded: an exported model in its own process."""
    if path.suffix == ".onnx" and not guarded:
        engine = open_exported(path, "onnx")
    else:
        engine, _ = load_engine(path, "onnx" if path.suffix == ".onnx" else "torch", device="cpu")
    print(f"scores {engine.logits(probe_waveforms(engine.nb_samp)).ravel()[:2]}")


def attempt(mutated: Mutated, folder: Path, guarded: bool = True) -> Outcome:
    """Score with the file in a process of its own, below 8 GB of memory."""
    path, out = folder / mutated.name, folder / "output"
    with path.open("wb") as file:
        file.seek(mutated.hole)
        file.write(mutated.data)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if (child := os.fork()) == 0:
        signal.alarm(WALL_SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
        sys.stdout = sys.stderr = out.open("w")
        for number in (1, 2):
            os.dup2(sys.stdout.fileno(), number)
        torch.set_num_threads(1)  # the threads of this process are not in the child
        code = 99
        try:
            run(lambda: score(path, guarded))
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    path.unlink()
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Outcome(os.waitstatus_to_exitcode(status), out.read_text(errors="replace"), seconds)


def complaint(mutated: Mutated, outcome: Outcome) -> str | None:
    """What is wrong with an outcome: more than a line, a traceback, a crash, too long, or a wrong file accepted."""
    lines = [line for line in outcome.output.splitlines() if not line.startswith("note: ")]
    if outcome.code not in (0, 2) or len(lines) != 1 or "Traceback" in outcome.output:
        return f"exit code {outcome.code}: {outcome.output[-300:]}"
    if (outcome.code == 2) != lines[0].startswith("error: "):
        return f"exit code {outcome.code}: {lines[0]}"
    if outcome.seconds > SECONDS:
        return f"{outcome.seconds:.1f} s"
    return "accepted" if mutated.refused and outcome.code == 0 else None


def main(count: int, first: int = 0) -> None:
    """Try mutations `first` to `count`; print what went wrong, then how many of each kind were refused."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # quantised tensors are deprecated
    with TemporaryDirectory() as name:
        mutations, wrong = Mutations(Path(name), seed=0), 0
        slowest, codes = Counter(), Counter()
        for number in range(count):
            kind = mutations.KINDS[number % len(mutations.KINDS)]
            mutated, began = mutations.make(kind), time.monotonic()
            if number < first:
                continue
            outcome = attempt(mutated, Path(name), guarded=False)  # a process to start takes longer than to score
            if complaint(mutated, outcome):
                outcome = attempt(mutated, Path(name))
            codes[kind, outcome.code] += 1
            if number % 100 == 99:
                print(f"{number + 1} done", flush=True)
            slowest[kind] = max(slowest[kind], outcome.seconds)
            if problem := complaint(mutated, outcome):
                wrong += 1
                print(f"{number} {kind} ({time.monotonic() - began:.0f} s): {problem}", flush=True)
        for kind in mutations.KINDS:
            refused, accepted = codes[kind, 2], codes[kind, 0]
            print(
                f"{kind:<20} {refused:4} refused, {accepted:4} scored; {slowest[kind]:5.1f} s of processor time at most"
            )
        print(f"{wrong} of {count - first} wrong")
