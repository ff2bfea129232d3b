"""How fast is training? Every precision, compiled or not, against the official code's loop, all in one run.

    python benchmarks/train.py --markdown                                     # LA-sized data, made once (5.5 GB)
    python benchmarks/train.py --rows plain fp32 bf16+compile+ram --rounds 3 --loss_steps 20
    python benchmarks/train.py --config config/AASIST-L.conf --train 48 --dev 24 --batch_size 2 --rounds 1   # a try

A row is `plain` or a precision, joined by + to `compile`, `recompute` or a cache mode. `plain` is what the official
code does: the training process decodes every file every time, eager fp32, torch's defaults, a wait each step; it runs
our model, which computes in place and so needs less memory than theirs. On a GPU torch's default rounds the factors of
convolutions to tf32; `plain+fp32` does not. Each visit of a row is a process of its own, as memory's peak and torch's
allocator belong to a process; rounds go over all rows, since a machine's speed drifts. Numbers are medians; a GPU's
memory includes the samples kept there.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from audio import SAMPLE_RATE
from audio.chunks import fit
from common.pool import map_in_order
from config import Config, load_config
from corpora import packed
from corpora.asvspoof import ASVspoof2019
from data_utils import Order, score_loader, train_loader, with_pack
from models import build_model
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.optimization import Stepper, compiled, learning_rate
from utils import pick_device, seed_everything, set_precision

TRAIN, DEV, EPOCHS = 25_380, 24_844, 100  # the recipe that hours are projected for
WINDOWS = 3  # that a process times, of `steps` batches each
WORDS = {"plain", "fp32", "tf32", "bf16", "compile", "recompute", "mmap", "ram", "gpu"}
CPU = {"batch_size": 8, "steps": 1, "warm_up": 1, "rounds": 1, "loss_steps": 3}
CPU["rows"] = ["plain", "fp32", "fp32+compile", "bf16", "bf16+compile", "fp32+recompute"]
GPU = {"batch_size": 24, "steps": 20, "warm_up": 5, "rounds": 1, "loss_steps": 20}
GPU["rows"] = ["plain", "plain+fp32", *(p + c for p in ("bf16", "tf32", "fp32") for c in ("", "+compile"))]
GPU["rows"].append("bf16+recompute")
SUFFIX = ".flac" if importlib.util.find_spec("soundfile") else ".pcm"

# --------------------------------------------------------------------------------------------------------------- data
#
# 50,224 utterances are 5.5 GB of samples. To encode them all as flac and decode them into packs would take minutes, so
# the packs are written at once, as packed.py would have written them, and only what plain rows read becomes files.

NOISE = 3000 * np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def lengths(size: int) -> list[int]:
    """Samples of each utterance: 0.7 to 13 s, 3.4 s in the mean."""
    seconds = np.random.default_rng(1).lognormal(np.log(3.4) - 0.42**2 / 2, 0.42, size).clip(0.7, 13)
    return (SAMPLE_RATE * seconds).astype(int).tolist()


def utterance(index: int, length: int) -> np.ndarray:
    """(length,) int16: noise in syllables, four a second."""
    first = index * 7919 % (len(NOISE) - length)
    envelope = np.abs(np.sin(np.arange(length, dtype=np.float32) * np.float32(np.pi / 4000) + np.float32(index)))
    return (NOISE[first : first + length] * envelope).astype("<i2")


def make_data(args: argparse.Namespace) -> None:
    """Protocols, packs and the files that plain rows read; packs and files that are there already are left."""
    per_epoch, config = args.train // args.batch_size, row_config(args, "plain")
    steps = range(max(args.warm_up + (2 * WINDOWS + 1) * args.steps, args.loss_steps))
    order = Order(range(args.train), config)
    drawn = [order.batch(*divmod(step, per_epoch)) for step in steps]
    read = {"train": np.unique(drawn), "dev": range(min(args.dev, args.batch_size * max(args.steps, args.warm_up)))}
    protocols = Path(config.database_path[0]) / "ASVspoof2019_LA_cm_protocols"
    for folder in (protocols, args.folder / "packed", args.folder / "audio"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", args.train), ("dev", args.dev)):
        utt_ids = [f"LA_{name[0].upper()}_{1_000_000 + i}" for i in range(size)]
        lines = [f"LA_0001 {u} - {'A01 spoof' if i % 10 else '- bonafide'}\n" for i, u in enumerate(utt_ids)]
        ASVspoof2019(config.database_path[0], "LA").protocol(name).write_text("".join(lines))
        make_pack(packed.pack_path(args.folder / "packed", f"LA_{name}", utt_ids), utt_ids)
        every = lengths(size)
        files = [(args.folder / "audio" / f"{utt_ids[i]}{SUFFIX}", i, every[i]) for i in read[name]]
        list(map_in_order(make_file, [file for file in files if not file[0].exists()], os.cpu_count() or 1))


def make_pack(path: Path, utt_ids: list[str]) -> None:
    """What packed.load would have built; the stamps of files do not count where there is no audio."""
    index, every, checksums = path.with_suffix(".json"), lengths(len(utt_ids)), []
    if index.exists():
        return
    with path.open("wb") as file:
        for number, length in enumerate(every):
            samples = utterance(number, length)
            file.write(samples)
            checksums.append(zlib.crc32(samples))
    stamps = {"file_bytes": [0] * len(every), "file_mtime_ns": [0] * len(every)}
    fields = {"format": packed.FORMAT, "utt_id": utt_ids, "samples": every, "crc32": checksums, "rounded": 0}
    index.write_text(json.dumps(fields | stamps))


def make_file(file: tuple[Path, int, int]) -> None:
    """Written whole or not at all."""
    path, index, length = file
    temporary = path.with_name(f".{path.name}")
    if path.suffix == ".pcm":
        utterance(index, length).tofile(temporary)
    else:
        import soundfile

        soundfile.write(temporary, utterance(index, length), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    temporary.replace(path)


def read_file(path: Path) -> np.ndarray:
    """(n,) float64, as the official code reads it."""
    if path.suffix == ".pcm":
        return np.fromfile(path, "<i2") / packed.FULL_SCALE
    import soundfile

    return soundfile.read(path)[0]


# --------------------------------------------------------------------------------------------------------- two loops


def row_config(args: argparse.Namespace, row: str) -> Config:
    words = row.split("+")
    cache = ({"mmap", "ram", "gpu"} & set(words) or {"gpu" if args.on_gpu else "mmap"}).pop()
    how = {"precision": words[0].replace("plain", "fp32"), "cache": cache, "num_workers": 0, "accumulation_steps": 1}
    how |= {word: word in words for word in ("compile", "recompute")}
    where = {"database_path": (str(args.folder / "LA"),), "cache_path": str(args.folder / "packed"), "track": "LA"}
    return replace(load_config(args.config), batch_size=args.batch_size, **how, **where)


class Loop:
    """Training and scoring from the first step of a run on; a row is either of the two below."""

    def __init__(self, args: argparse.Namespace, row: str):
        self.args, self.config, self.device = args, row_config(args, row), pick_device(args.device)
        seed_everything(self.config)
        self.model = build_model(self.config.model_config).to(self.device)
        self.length, self.steps_per_epoch = self.model.nb_samp, args.train // args.batch_size
        corpus = ASVspoof2019(self.config.database_path[0], "LA")
        self.train, self.dev = corpus.partition("train"), corpus.partition("dev")
        self.order = Order(self.train.trials, self.config)
        self.done = 0

    def indices(self, epoch: int, step: int) -> np.ndarray:
        return self.order.batch(epoch, step)


class Plain(Loop):
    """The official code's loop, over the batches and learning rates that ours has."""

    def __init__(self, args: argparse.Namespace, row: str):
        super().__init__(args, row)
        torch.backends.cudnn.allow_tf32 = row != "plain+fp32"  # true: as torch comes
        optim = self.config.optim_config
        options = {"lr": optim.base_lr, "betas": optim.betas, "weight_decay": optim.weight_decay}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **options)
        self.schedule = learning_rate(optim, self.steps_per_epoch, self.config.num_epochs)
        self.criterion = nn.CrossEntropyLoss(torch.tensor(self.config.class_weights, device=self.device))
        self.load = partial(DataLoader, num_workers=0, pin_memory=args.on_gpu)

    def item(self, trial, rng: np.random.Generator | None = None) -> tuple[torch.Tensor, int]:
        samples = read_file(self.args.folder / "audio" / f"{trial.utt_id}{SUFFIX}")
        return torch.Tensor(fit(samples, self.length, rng)), trial.label

    def batches(self):
        self.model.train()
        for epoch in count():
            seed = (self.config.seed, epoch)
            crops = Each(lambda i, seed=seed: self.item(self.train.trials[i], np.random.default_rng((*seed, i))))
            yield from self.load(crops, batch_sampler=[self.indices(epoch, s) for s in range(self.steps_per_epoch)])

    def forward(self, batch) -> torch.Tensor:
        x, y = (part.to(self.device) for part in batch)
        return self.criterion(self.model(x, freq_aug=self.config.freq_aug)[1], y)

    def step(self, batch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.done)
        loss = self.forward(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        return loss.item()

    def score(self, batches: int) -> int:
        """Returns how many utterances that were."""
        self.model.eval()
        order, scores = torch.arange(self.args.dev).split(self.args.batch_size)[:batches], []
        with torch.no_grad():
            for x, _ in self.load(Each(lambda i: self.item(self.dev.trials[i])), batch_sampler=order):
                scores.extend(self.model(x.to(self.device))[1][:, 1].cpu().numpy().tolist())
        return len(scores)


class Each:
    """A dataset of what `item` gives."""

    def __init__(self, item):
        self.item = item

    def __getitem__(self, index) -> tuple[torch.Tensor, int]:
        return self.item(int(index))


class Ours(Loop):
    """What training.py does, by the same parts."""

    def __init__(self, args: argparse.Namespace, row: str):
        super().__init__(args, row)
        set_precision(self.config.precision, self.device)
        self.stepper = Stepper(self.model, self.config, self.steps_per_epoch)
        self.optimizer = self.stepper.optimizer
        self.scorer = compiled(self.model) if self.config.compile else self.model
        self.train, self.dev = (with_pack(part, self.config, self.device) for part in (self.train, self.dev))
        self.weights = np.array(self.config.class_weights)[[trial.label for trial in self.train.trials]]
        self.previous = torch.zeros(())

    def batches(self):
        self.model.train().to(memory_format=torch.contiguous_format)
        for epoch in count():
            for step, batch in enumerate(train_loader(self.train, self.length, self.config, epoch)):
                yield *batch, float(self.weights[self.indices(epoch, step)].sum())

    def forward(self, batch) -> torch.Tensor:
        x, y = (part.to(self.device, non_blocking=True) for part in batch[:2])
        return self.stepper._loss(x, y) / batch[2]

    def step(self, batch) -> torch.Tensor:
        loss = self.stepper([batch[:2]], batch[2], self.done)
        (self.previous if self.args.on_gpu else loss).item()  # a GPU computes the next step meanwhile
        self.done, self.previous = self.done + 1, loss
        return loss

    def score(self, batches: int) -> int:
        engine = TorchEngine(self.scorer, self.device, "bf16" if self.config.precision == "bf16" else "fp32")
        part = replace(self.dev, trials=self.dev.trials[: batches * self.args.batch_size])
        return len(Detector(engine).score(score_loader(part, self.length, self.config)))


# ---------------------------------------------------------------------------------------- jobs, each in its process


def now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call) -> float:
    started = now()
    call()
    return now() - started


def speed(args: argparse.Namespace, row: str) -> dict:
    loop, size = (Plain if "plain" in row else Ours)(args, row), args.batch_size
    batches, result = loop.batches(), {}

    def rates(call) -> list[float]:
        return [args.steps * size / seconds(call) for _ in range(WINDOWS)]

    def train(steps: int) -> None:
        for _ in range(steps):
            loop.step(next(batches))

    first = seconds(lambda: train(1))
    train(args.warm_up - 1)
    result["train"] = rates(lambda: train(args.steps))
    result["shares"] = shares(loop, batches, args.steps)
    result["loader"] = rates(lambda: [next(batches) for _ in range(args.steps)])
    result["first"] = [first, seconds(lambda: loop.score(1))]
    loop.score(args.warm_up - 1)
    result["score"] = rates(lambda: loop.score(args.steps))
    result["memory"] = memory(args.on_gpu)
    return result


def shares(loop: Plain | Ours, batches, steps: int) -> list[float]:
    """Of a step's time: loader, forward, backward, optimizer; each waits for the one before, so the sum is slower."""
    times = []
    for _ in range(steps):
        marks = [now()]
        batch = next(batches)
        marks.append(now())
        loss = loop.forward(batch)
        marks.append(now())
        loop.optimizer.zero_grad()
        loss.backward()
        marks.append(now())
        loop.optimizer.step()
        times.append(np.diff([*marks, now()]))
    return (np.sum(times, axis=0) / np.sum(times)).tolist()


def memory(on_gpu: bool) -> list[int]:
    """Peak bytes: allocated and reserved of a GPU; own and all of the machine's.

    Not own are the mapped pages, of packs above all: those belong to the system's cache, which takes them back.
    """
    if on_gpu:
        return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [peak - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[2]), peak]


def losses(args: argparse.Namespace, row: str) -> list[float]:
    """Of the first steps, without dropout, as compiled code draws other masks."""
    loop = (Plain if "plain" in row else Ours)(args, row)
    for module in loop.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return [float(loop.step(batch)) for batch in islice(loop.batches(), args.loss_steps)]


class Traffic(TorchDispatchMode):
    """Bytes that a model's operations read and write in eager mode, by the child module whose forward pass it is."""

    HEAVY = ("convolution", "mm", "max_pool")  # all else could be computed while their tensors pass by

    def __init__(self, model: nn.Module):
        super().__init__()
        self.layers, self.heavy, self.layer = Counter(), 0, "rest"
        for name, module in model.named_modules():
            if name not in ("", "encoder") and name.count(".") <= name.startswith("encoder."):
                module.register_forward_pre_hook(partial(self.enter, name))
                module.register_forward_hook(partial(self.enter, "rest"))

    def enter(self, layer: str, *_) -> None:
        self.layer = layer

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result, name = function(*arguments, **keywords or {}), function.name()
        if not (function.is_view or "empty" in name or "_unsafe_view" in name):
            leaves = tree_leaves((arguments, keywords, result))
            moved = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
            self.layers[self.layer] += moved
            self.heavy += moved if any(word in name for word in self.HEAVY) else 0
        return result


def roofline(args: argparse.Namespace, _row: str) -> dict:
    """The most that the device does a second, and what an utterance (of four) asks of it."""
    device, side = pick_device(args.device), 8192 if args.on_gpu else 2048

    def median_seconds(call) -> float:
        return statistics.median([seconds(call) for _ in range(11)][1:])

    block = torch.randn(2**28 if args.on_gpu else 2**26, device=device)
    target = torch.empty_like(block)
    result = {"copies": 2 * block.nbytes / median_seconds(lambda: target.copy_(block)), "products": {}}
    for precision in ("fp32", "tf32", "bf16") if args.on_gpu else ("fp32", "bf16"):
        set_precision(precision, device)
        a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        result["products"][precision] = 2 * side**3 / median_seconds(partial(torch.mm, a, a))
    for precision in ("fp32", "bf16"):
        model = build_model(load_config(args.config).model_config).to(device).train()
        x = torch.randn(4, model.nb_samp, device=device)
        with FlopCounterMode(display=False) as flops, Traffic(model) as traffic:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(x)[1].float().sum()
            forward, layers = flops.get_total_flops() / 4, {name: n / 4 for name, n in traffic.layers.items()}
            loss.backward()
        result["flops"] = [forward, flops.get_total_flops() / 4]
        result[precision] = {"layers": layers, "all": traffic.layers.total() / 4, "heavy": traffic.heavy / 4}
    return result


# ------------------------------------------------------------------------------------------------------------- output


def median(visits: list[dict], key: str) -> float:
    return statistics.median(rate for visit in visits for rate in visit[key])


def print_roofline(limits: dict, results: dict) -> None:
    """The device's limits as utterances/s, and each row's share of them."""
    products = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in limits["products"].items())
    print(f"\nRoofline: copies {limits['copies'] / 1e9:.0f} GB/s (read and written), products {products} TFLOP/s.")
    print("An utterance: {:.1f} GFLOP forward, {:.1f} with backward.".format(*np.divide(limits["flops"], 1e9)))
    for precision in ("fp32", "bf16"):
        moved, forward = limits[precision], sum(limits[precision]["layers"].values())
        parts = ", ".join(f"{k} {v / 1e6:.0f}" for k, v in moved["layers"].items() if v > forward / 100)
        print(f"Eager {precision} reads and writes {moved['all'] / 1e6:.0f} MB, forward {forward / 1e6:.0f} ({parts});")
        print(f"  with all but convolutions, products and pools fused into these, {moved['heavy'] / 1e6:.0f}.")
    print(f"\n{'utt/s, share of limits':<22}{'train':>8}{'eager bytes':>14}{'fused bytes':>14}{'arithmetic':>14}")
    for row, visits in results.items():
        if "failed" in visits[-1]:
            continue
        precision, rate = row.split("+")[0].replace("plain", "fp32"), median(visits, "train")
        moved = limits["bf16" if precision == "bf16" else "fp32"]
        arithmetic = limits["products"]["tf32" if row == "plain" and "tf32" in limits["products"] else precision]
        most = [limits["copies"] / moved["all"], limits["copies"] / moved["heavy"], arithmetic / limits["flops"][1]]
        print(f"{row:<22}{rate:>8.4g}" + "".join(f"{limit:>8.4g} {rate / limit:>5.1%}" for limit in most))


def table(rows: list[str], results: dict, found: dict, on_gpu: bool) -> list[list[str]]:
    """Its head and its rows; ratios are to `plain`."""
    memory = ["allocated GB", "reserved GB"] if on_gpu else ["own GB", "RSS GB"]
    head = ["row", "train utt/s", "ratio", "score utt/s", "ratio", "loader utt/s", "load/fwd/bwd/opt %", *memory]
    head += ["first step, batch s", "recipe h", "ratio", "loss differs"]
    return [head, *(cells(row, results, found) for row in rows)]


def cells(row: str, results: dict, found: dict) -> list[str]:
    visits, base = results[row], results.get("plain", [{"failed": "not asked for"}])
    if "failed" in visits[-1]:
        return [row, visits[-1]["failed"]]

    def numbers(visits: list[dict]) -> np.ndarray:
        train, score = median(visits, "train"), median(visits, "score")
        return np.array([train, score, 3600 / EPOCHS / (TRAIN / train + DEV / score)])  # the last: recipes an hour

    own = numbers(visits)
    ratios = ["–"] * 3 if "failed" in base[-1] else [f"{ratio:.2f}" for ratio in own / numbers(base)]
    parts = "/".join(f"{100 * share:.0f}" for share in np.mean([visit["shares"] for visit in visits], axis=0))
    memory = [f"{max(visit['memory'][k] for visit in visits) / 1e9:.2f}" for k in (0, 1)]
    first = ", ".join(f"{value:.1f}" for value in visits[0]["first"])
    reference, differs = found.get("plain+fp32", found.get("plain")), "–"
    if isinstance(reference, list) and isinstance(found.get(row), list):
        differs = f"{np.abs(np.subtract(found[row], reference)).max():.0e}"
    speeds = [f"{own[0]:.4g}", ratios[0], f"{own[1]:.4g}", ratios[1], f"{median(visits, 'loader'):.4g}", parts]
    return [row, *speeds, *memory, first, f"{1 / own[2]:.3g}", ratios[2], differs]


def aligned(values: list[str], head: list[str]) -> str:
    widths = [max(len(name), 6) + 2 for name in head]
    return f"{values[0]:<18}" + "".join(f"{v:>{w}}" for v, w in zip(values[1:], widths[1:], strict=False))


def print_header(args: argparse.Namespace) -> None:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ")[1] for line in cpuinfo if line.startswith("model name")] or [platform.processor()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}: {len(names)} × {names[0]}, {memory:.0f} GiB; {versions}")
    if args.on_gpu:
        card, cudnn = torch.cuda.get_device_properties(0), torch.backends.cudnn.version()
        print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    sizes = f"batches of {args.batch_size}, {args.train:,} train and {args.dev:,} dev utterances in {args.folder}"
    print(f"{args.config}, {sizes}; {torch.get_num_threads()} threads; {args.rounds} × {WINDOWS} × {args.steps} steps")
    if SUFFIX == ".pcm":
        print("No soundfile here: plain rows read int16 as it is, quicker than any flac, which is in their favour.")


# --------------------------------------------------------------------------------------------------------------- main


def in_process(args: argparse.Namespace, job: str, row: str):
    """What the job returns, or {"failed": why}."""
    env = os.environ | {"THP_MEM_ALLOC_ENABLE": str(int("plain" not in row)), "TORCHINDUCTOR_CACHE_DIR": args.inductor}
    command = [sys.executable, __file__, *sys.argv[1:], "--job", job, row]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    print(f"{job} of {row}:\n{done.stderr[-3000:]}", file=sys.stderr, flush=True)
    why = (re.findall(r"^[\w.]*Error\b.*", done.stderr, re.MULTILINE) or [f"exit code {done.returncode}"])[-1][:150]
    return {"failed": f"failed: {'killed, as when memory runs out' if done.returncode == -9 else why}"}


def measure(args: argparse.Namespace) -> int:
    """Every row, in rounds, then the losses; prints as it goes. Returns 1 if anything failed."""
    started = time.monotonic()
    make_data(args)  # before the header asks for the GPU, as it forks
    print_header(args)
    print(f"data there after {time.monotonic() - started:.0f} s\n", flush=True)
    limits, results, found = in_process(args, "roofline", "any"), {}, {}
    print(aligned(*table([], {}, {}, args.on_gpu) * 2), flush=True)
    for _ in range(args.rounds):
        for row in args.rows:
            if "failed" not in results.get(row, [{}])[-1]:
                results.setdefault(row, []).append(in_process(args, "speed", row))
                print(aligned(*reversed(table([row], results, found, args.on_gpu))), flush=True)
    if "failed" not in limits:
        print_roofline(limits, results)
    for row in args.rows if args.loss_steps else ():
        sound = "failed" not in results[row][-1]
        if sound and ("fp32" in row or (row == "plain" and not args.on_gpu)):
            found[row] = in_process(args, "losses", row)
    print(f"\n{args.loss_steps} losses compared\n")
    head, *rows = table(args.rows, results, found, args.on_gpu)
    for values in (head, ["---"] * len(head), *rows) if args.markdown else (head, *rows):
        print(f"| {' | '.join(values)} |" if args.markdown else aligned(values, head))
    print(f"\n{(time.monotonic() - started) / 60:.1f} min")
    return int(any("failed" in answer for answer in (limits, *found.values(), *(v[-1] for v in results.values()))))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config/AASIST.conf")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--train", type=int, default=TRAIN, help="utterances")
    parser.add_argument("--dev", type=int, default=DEV, help="utterances")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aasist_benchmark")
    parser.add_argument("--rows", nargs="+", help=f"of a CPU {' '.join(CPU['rows'])}; of a GPU {' '.join(GPU['rows'])}")
    for name in ("batch_size", "steps", "warm_up", "rounds", "loss_steps"):
        parser.add_argument(f"--{name}", type=int, help=f"on a CPU {CPU[name]}, on a GPU {GPU[name]}")
    parser.add_argument("--markdown", action="store_true", help="print the last table as RESULTS.md has it")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.on_gpu = pick_device(args.device).type == "cuda"
    for name, value in (GPU if args.on_gpu else CPU).items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    if unknown := {word for row in args.rows for word in row.split("+")} - WORDS:
        parser.error(f"--rows knows {', '.join(sorted(WORDS))}, not {', '.join(unknown)}")
    if min(args.train, args.dev) < args.batch_size * max(args.steps, args.warm_up):
        parser.error("--train and --dev: at least as many utterances as a window has")
    return args


def main() -> int:
    args = arguments()
    if args.job:
        job, row = args.job
        print(json.dumps({"speed": speed, "losses": losses, "roofline": roofline}[job](args, row)))
        return 0
    with tempfile.TemporaryDirectory() as args.inductor:  # that compile time is not an earlier run's
        return measure(args)


if __name__ == "__main__":
    sys.exit(main())
