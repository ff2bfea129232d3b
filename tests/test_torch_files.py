"""Files of torch.save: the same as torch.load gives, every flipped bit noticed, and nothing that expands."""

import io
import os

import pytest
import torch
from conftest import TINY_MODEL, save_tiny
from mutations import bad_pickles, entries_of, zipped

from common import memory
from common.errors import UserError
from common.memory import available_memory, read_regular
from common.torch_files import DTYPES, read_torch
from models import build_model
from utils import describe_checkpoint, load_checkpoint, load_model

CONTENT = {
    "weights": {str(dtype): torch.ones(3, 2).to(dtype) for dtype in DTYPES.values()},
    "views": (torch.arange(12).view(3, 4).t(), torch.arange(6)[2:5], torch.tensor(3.0), torch.empty(0, 2)),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "plain": [None, True, 7, -(10**40), 2.5, "text", (1, ["a"]), {1: {"x": ()}}],
}


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def saved(content: object, new_format: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=new_format)
    return out.getvalue()


@pytest.mark.parametrize("new_format", [True, False])
def test_it_reads_what_torch_reads(new_format):
    data = saved(CONTENT, new_format)
    assert same(read_torch(data), torch.load(io.BytesIO(data), weights_only=True))


def test_every_flipped_bit_of_a_tensor_is_noticed():
    data = bytearray(saved({"x": torch.arange(64, dtype=torch.uint8)}))
    start = bytes(data).index(bytes(range(64)))
    for place in range(start, start + 64):
        data[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="damaged: archive/data/0"):
            read_torch(bytes(data))
        data[place] ^= 1 << place % 8
    read_torch(bytes(data))


@pytest.mark.parametrize("pickled", bad_pickles(), ids=range(len(bad_pickles())))
def test_a_pickle_that_expands_or_calls_is_refused(tmp_path, pickled):
    entries = entries_of(save_tiny(tmp_path / "a.pth").read_bytes())
    (tmp_path / "a.pth").write_bytes(zipped(entries | {"archive/data.pkl": pickled}))
    with pytest.raises(UserError, match="a.pth"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("size", [8, 1 << 40])
def test_a_tensor_larger_than_its_storage_is_refused(size):
    data = saved({"x": torch.zeros(1).expand(4, size)})
    with pytest.raises(ValueError, match="elements on 1"):
        read_torch(data)


def test_entries_that_share_bytes_are_refused():
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
        archive.filelist *= 400
    with pytest.raises(ValueError, match="share bytes"):
        read_torch(out.getvalue())


def test_files_that_are_too_large_or_none_are_not_read(tmp_path):
    with (tmp_path / "sparse.pth").open("wb") as file:
        file.truncate(200_000_000_000)
    with pytest.raises(UserError, match="at most .* bytes here, found 200,000,000,000"):
        load_checkpoint(tmp_path / "sparse.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="expected a file, found no file"):
        load_checkpoint(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="found a folder"):
        read_regular(tmp_path, 10)


def test_memory_that_a_process_may_take():
    import resource

    before, limits = available_memory(), resource.getrlimit(resource.RLIMIT_AS)
    assert before > 1 << 20
    try:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 45, limits[1]))
        assert available_memory() <= before * 1.5
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


AASIST = {"architecture": "AASIST", "filts": [70, [1, 8], [8, 8], [8, 8], [8, 8]], "gat_dims": [8, 8], "nb_samp": 8000}
AASIST |= {"pool_ratios": [0.5] * 4, "temperatures": [1.0] * 4}
RAWNET = {"architecture": "RawNet2Spoof", "filts": [20, [20, 20], [20, 128], [128, 128]]}


@pytest.mark.parametrize(
    "model_config",
    [
        AASIST | {"gat_dims": [200_000, 200_000]},
        AASIST | {"nb_samp": 10**12},
        AASIST | {"nb_samp": 10**400},
        AASIST | {"filts": [10**6, [1, 8], [8, 8], [8, 8], [8, 8]]},
        RAWNET | {"blocks": [10**9, 1]},
        RAWNET | {"gru_node": 10**7},
        RAWNET | {"nb_gru_layer": 10**9},
        RAWNET | {"first_conv": 10**7, "nb_samp": 10**8},
        {"architecture": "LFCC_LCNN", "nb_samp": 10**14},
        {"architecture": "LFCC_LCNN", "channels": [32, 48, 64, 10**8]},
        {"architecture": "RawNetGatSpoofST", "filts": [70, [1, 10**6], [10**6, 8], [8, 8], [8, 8]]},
        {"architecture": "Ensemble", "members": [{"architecture": "LFCC_LCNN"}] * 1000},
    ],
)
def test_a_configuration_of_terabytes_is_refused_before_anything_is_made(model_config, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 8 << 30)
    with pytest.raises(UserError, match="model_config"):
        build_model(model_config, most=10_000_000)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"config": 3}, "a config of plain values"),
        ({"config": {"model_config": torch.ones(2)}}, "a config of plain values"),
        ({"config": {"model_config": []}}, "a config with model_config"),
        ({"model": [1]}, "a dict of tensors"),
        ({"dev_eer": "x"}, "a dev_eer"),
        ({"format": "x" * 1000}, "expected 1, found xxx"),
        ({"config": {"model_config": {"architecture": "SSL_AASIST", "encoder": "somebody/encoder"}}}, "encoder_config"),
    ],
)
def test_fields_of_other_types_are_named(tmp_path, fields, words):
    with pytest.raises(UserError, match=words):
        load_model(save_tiny(tmp_path / "a.pth", **fields))


def test_inspect_shows_any_field_on_its_line(tmp_path):
    config = {"model_config": TINY_MODEL, "database_path": 3}
    path = save_tiny(tmp_path / "a.pth", config=config, epoch="1\nSHA-256 0", threshold={1: 2})
    lines = describe_checkpoint(path).splitlines()
    assert len([line for line in lines if line.startswith("SHA-256")]) == 1 and "trained on    3" in lines
