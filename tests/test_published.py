"""Checkpoints of other repositories: what is recognised, and that scores are the authors'.

The models of the forks were compared once with back ends transcribed from the authors' files; here their converted
names are what is tested, on small random weights.
"""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, same

from common.errors import UserError
from config import load_config
from models import build_model
from models.published import NAMES, RAWGAT, RAWGAT_FIRST, as_published, read_published
from training.model import load_initial
from utils import load_checkpoint, load_model

RAWGAT_CONFIG = load_config(ROOT / "config" / "RawGATST_baseline.conf").model_config
RAWNET2_CONFIG = load_config(ROOT / "config" / "RawNet2_baseline.conf").model_config


@pytest.fixture(scope="module")
def tiny_ssl(shared) -> dict[str, torch.Tensor]:
    path = shared / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth"
    return torch.load(path, map_location="cpu", weights_only=True)


def waveforms(shared) -> torch.Tensor:
    return torch.from_numpy(np.load(shared / "fixtures" / "logits" / "aasist.npz")["waveforms"])


# ---------------------------------------------------------------------------------------------- SSL_Anti-spoofing


def test_ssl_anti_spoofing_gives_the_authors_logits(shared):
    pytest.importorskip("transformers")
    model, checkpoint = load_model(shared / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth")
    with np.load(shared / "fixtures" / "logits" / "ssl_anti_spoofing_tiny.npz") as file:
        expected = {name: file[name][:2] for name in file}
    with torch.inference_mode():
        features, found = model.represent(waveforms(shared)[:2]).mean(dim=1), model(waveforms(shared)[:2])[1]
    np.testing.assert_allclose(features, expected["features_mean"], atol=1e-5)
    np.testing.assert_allclose(found, expected["logits"], atol=1e-5)
    assert checkpoint["unused"].keys() >= {"ssl_model.model.mask_emb", "ssl_model.model.quantizer.vars"}


def test_ssl_anti_spoofing_gets_its_names_back(tiny_ssl):
    found = read_published(tiny_ssl)
    assert same(as_published(found.weights, NAMES["SSL_AASIST"], found.unused), tiny_ssl)


def test_fine_tuning_needs_no_other_file(shared):
    """--init with the published recipe: the encoder and its last layer are the checkpoint's, nothing is downloaded."""
    pytest.importorskip("transformers")
    config = load_config(ROOT / "config" / "SSL_AASIST.conf")
    model = load_initial(config, str(shared / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth"))
    assert model.model_config["layers"] == "last" and model.model_config["encoder_config"]["hidden_size"] == 128


def test_a_newer_torch_names_the_positions_otherwise(tiny_ssl):
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    renamed = {}
    for name, x in tiny_ssl.items():
        end = name.rpartition(".")[2]
        renamed[name.removesuffix(end) + new.get(end, end)] = x
    assert same(read_published(renamed).weights, read_published(tiny_ssl).weights)


FORKS = {
    "SSL_SLS": {"features": 16},
    "SSL_Conformer": {"features": 12, "blocks": 2, "heads": 3, "kernel_size": 4},
    "SSL_Nes2Net": {"groups": [4, 4], "squeeze": 2, "pooling": "attention"},
}


@pytest.mark.parametrize("architecture", FORKS)
def test_forks_are_told_by_their_back_ends(tiny_ssl, tmp_path, shared, architecture):
    """A model made here, written under its authors' names, is recognised with its sizes and gives the same logits."""
    pytest.importorskip("transformers")
    base = read_published(tiny_ssl)
    encoder = {key: base.model_config[key] for key in ("encoder_config", "do_normalize")}
    torch.manual_seed(0)
    model = build_model({"architecture": architecture} | FORKS[architecture] | encoder).eval()
    theirs = as_published(model.state_dict(), NAMES[architecture])
    assert not any(name.startswith(("blocks.", "ssl_model.encoder")) for name in theirs)
    torch.save(theirs, tmp_path / "fork.pth")
    found = load_checkpoint(tmp_path / "fork.pth")["config"]["model_config"]
    assert found["architecture"] == architecture and FORKS[architecture].items() <= found.items()
    x = waveforms(shared)[:1]
    with torch.inference_mode():
        assert torch.equal(load_model(tmp_path / "fork.pth")[0](x)[1], model(x)[1])


def test_layers_of_sls_lack_the_last_norm(tiny_ssl, shared):
    """fairseq's layer results, which SLS weighs, are those before XLS-R's last layer norm."""
    pytest.importorskip("transformers")
    model, _ = load_model(shared / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth")
    with torch.inference_mode():
        layers, last = model.layers(waveforms(shared)[:1])
        torch.testing.assert_close(model.ssl_model.encoder.layer_norm(layers[-1]), last)
    assert len(layers) == 4 and not torch.equal(layers[-1], last)


# ----------------------------------------------------------------------------------------------- RawGAT-ST, RawNet2


def rawgat_of(fusion: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A random model, and tensors that only its authors' model has."""
    torch.manual_seed(0)
    model = build_model(RAWGAT_CONFIG | {"fusion": fusion}).eval()
    zeros = as_published(model.state_dict(), RAWGAT)
    return model, {name: torch.randn_like(x) for name, x in zeros.items() if ".conv_1." in name and ".0.0." not in name}


@pytest.mark.parametrize("fusion", ["mul", "cat"])
def test_rawgat_names_there_and_back_are_the_identity(tmp_path, fusion, capsys):
    model, unused = rawgat_of(fusion)
    theirs = as_published(model.state_dict(), RAWGAT, unused)
    assert {"encoder1.0.0.conv_1.weight", "GAT_layer_spectral.att_weight", "output_layer.bias"} <= theirs.keys()
    found = read_published(theirs)
    assert same(found.weights, model.state_dict()) and found.model_config["fusion"] == fusion
    assert same(as_published(found.weights, RAWGAT, found.unused), theirs)
    torch.save(theirs, tmp_path / "theirs.pth")
    assert same(load_model(tmp_path / "theirs.pth")[0].state_dict(), model.state_dict())
    assert ("read as mul" in capsys.readouterr().err) == (fusion == "mul")
    if fusion == "mul":
        assert read_published(theirs, "RawGAT_ST_add/Best_epoch.pth").model_config["fusion"] == "add"
        assert read_published(theirs, "added/Best_epoch.pth").model_config["fusion"] == "mul"


def test_rawgat_of_the_first_version():
    """Its first blocks have no `conv_downsample`: they add their one channel to all others."""
    model, unused = rawgat_of("mul")
    theirs = as_published(model.state_dict(), RAWGAT_FIRST, unused)
    assert {"GAT_layer1.att_weight", "proj_node.weight", "proj.weight"} <= theirs.keys()
    found = read_published(theirs)
    assert same(as_published(found.weights, RAWGAT_FIRST, found.unused), theirs)
    x = torch.randn(2, 1, 23, 90)
    own = build_model(RAWGAT_CONFIG).eval()
    own.load_state_dict(found.weights)
    block = own.encoder_T[0][0]
    assert torch.equal(block.conv_downsample(x), x.expand(-1, 32, -1, -1))


def test_asvspoof5_rawnet2_is_told_by_its_first_norms():
    """The tensors are those of 2021's baseline, whose `bn1` never learns."""
    torch.manual_seed(0)
    weights = build_model(RAWNET2_CONFIG | {"pre_activation": True}).state_dict()
    assert read_published(weights) is None
    weights["block3.0.bn1.bias"] = weights["block3.0.bn1.bias"] + 0.01
    found = read_published(weights)
    assert found.model_config["pre_activation"]
    small = {"nb_samp": 8000, "first_conv": 64, "filts": [4, [4, 4], [4, 6], [6, 6]], "nb_fc_node": 8, "gru_node": 8}
    model = build_model(RAWNET2_CONFIG | small | {"pre_activation": True}).eval()
    x = torch.randn(1, 8000)
    before = model(x)[1]
    torch.nn.init.normal_(model.block3[0].bn1.weight)
    assert not torch.equal(before, model(x)[1]) and model.block3[0].bn1.weight.requires_grad


# -------------------------------------------------------------------------------------------- what is none of them


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("conformer.layers.0.mixer.A_log", "XLSR-Mamba"),
        ("ssl_model.model.post_extract_proj.weight", "a fork of SSL_Anti-spoofing"),
        ("wav2vec2.encoder.layer_norm.weight", "a model of transformers"),
        ("post_extract_proj.weight", "fairseq's encoder alone"),
        ("m_transform.0.1.weight", "LCNN of ASVspoof 2021"),
        ("something.weight", "such as something.weight"),
    ],
)
def test_other_families_are_named(tmp_path, name, words):
    torch.save({name: torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=words):
        load_model(tmp_path / "other.pth")


def damaged(rng: random.Random, tiny_ssl: dict[str, torch.Tensor]) -> dict:
    """The fixture with a tensor gone, of another shape, of no elements, or expanded to terabytes."""
    weights = dict(tiny_ssl)
    for name in rng.sample(sorted(weights), rng.randint(1, 3)):
        kind = rng.choice(("gone", "shape", "empty", "huge", "value", "rank"))
        if kind == "gone":
            del weights[name]
        else:
            shape = list(weights[name].shape) or [1]
            if kind == "shape":
                shape[rng.randrange(len(shape))] += 1
            changed = {
                "shape": torch.zeros(shape),
                "empty": torch.zeros(0, *shape[1:]),
                "huge": torch.zeros(1).expand(1 << 40, *shape[1:]),
                "value": 7,
                "rank": torch.zeros(()),
            }
            weights[name] = changed[kind]
    return weights


FUZZ = """
import re, sys
from common.errors import UserError
from utils import load_model
ended = []
for path in sys.argv[1:]:
    try:
        load_model(path)
        ended.append("loaded")
    except UserError as error:
        assert "\\n" not in str(error) and path in str(error), error
        ended.append("refused")
status = open("/proc/self/status").read()  # of this program alone; getrusage counts what its parent had
print(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024, *ended)
"""


def fuzz(folder, tiny_ssl: dict[str, torch.Tensor], count: int) -> tuple[int, list[str]]:
    """Load `count` damaged files in a process of its own; MiB that it took at most, and how each file ended."""
    rng, paths = random.Random(0), []
    torch.save(tiny_ssl, folder / "whole.pth")
    torch.save(tiny_ssl, folder / "whole_old.pth", _use_new_zipfile_serialization=False)
    for number in range(count):
        paths.append(folder / f"{number}.pth")
        if number % 2:
            torch.save(damaged(rng, tiny_ssl), paths[-1])
        else:
            data = bytearray((folder / rng.choice(("whole.pth", "whole_old.pth"))).read_bytes())
            for _ in range(rng.randint(1, 20)):
                data[rng.randrange(min(len(data), rng.choice((300, 30_000, len(data)))))] = rng.randrange(256)
            paths[-1].write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
    command = [sys.executable, "-c", FUZZ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    memory, *ended = done.stdout.split()
    return int(memory), ended


def test_damaged_files_end_in_one_line(tiny_ssl, tmp_path):
    """`python tests/test_published.py` does it with 200 files."""
    pytest.importorskip("transformers")
    memory, ended = fuzz(tmp_path, tiny_ssl, 16)
    assert memory < 1024 and ended.count("refused") >= 8


if __name__ == "__main__":
    import tempfile
    from pathlib import Path

    fixture = ROOT.parent / "shared" / "fixtures" / "weights" / "SSL_Anti-spoofing_tiny.pth"
    with tempfile.TemporaryDirectory() as temporary:
        peak, results = fuzz(Path(temporary), torch.load(fixture, weights_only=True), 200)
    print(f"{peak} MiB; {results.count('refused')} refused, {results.count('loaded')} loaded")
