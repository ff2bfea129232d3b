"""An SSL_Anti-spoofing checkpoint of XLS-R 300M's size, in its authors' format: time to load and score, memory.

    python benchmarks/ssl_300m.py

The weights are random and written to a temporary folder (1.3 GB). Each figure is of a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.command import run
from config import load_config
from models import build_model
from models.published import NAMES, as_published

ENCODER = {
    "model_type": "wav2vec2", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "hidden_act": "gelu", "hidden_dropout": 0.0, "activation_dropout": 0.0,
    "attention_dropout": 0.0, "feat_proj_dropout": 0.0, "layer_norm_eps": 1e-5, "initializer_range": 0.02,
    "feat_extract_norm": "layer", "feat_extract_activation": "gelu", "conv_dim": [512] * 7,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2], "conv_kernel": [10, 3, 3, 3, 3, 2, 2], "conv_bias": True,
    "num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16, "do_stable_layer_norm": True,
}  # fmt: skip
MEASURE = """
import sys, time, torch
from utils import load_model, peak_memory
torch.set_num_threads(int(sys.argv[3]))
import transformers
started, worked = time.perf_counter(), time.process_time()
model, _ = load_model(sys.argv[1])
loaded = time.perf_counter() - started, time.process_time() - worked
from scoring.engines import TorchEngine
engine = TorchEngine(model, "cpu", sys.argv[2])
x = 0.1 * torch.randn(1, model.nb_samp)
engine.logits(x)
started, worked = time.perf_counter(), time.process_time()
for _ in range(5):
    engine.logits(x)
seconds = (time.perf_counter() - started) / 5, (time.process_time() - worked) / 5
times = " | ".join(f"{value:.1f}" for value in (*loaded, *seconds))
print(f"| {sys.argv[2]} | {peak_memory(torch.device('cpu')) / 2**30:.1f} | {times} |")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    torch.manual_seed(0)
    config = load_config(ROOT / "config" / "SSL_AASIST.conf").model_config
    model = build_model(config | {"encoder_config": ENCODER, "do_normalize": False, "layers": "last"})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pth"
        torch.save(as_published(model.state_dict(), NAMES["SSL_AASIST"]), path)
        del model
        head = "| precision | peak memory, GiB | load, s | CPU s | one chunk, s | CPU s |\n|---|---|---|---|---|---|"
        print(head, flush=True)
        for precision in ("fp32", "bf16"):
            command = [sys.executable, "-c", MEASURE, str(path), precision, str(threads)]
            subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    run(main)
