import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from conftest import ROOT, TINY_MODEL, save_tiny

from audio import reading
from audio.chunks import fit
from common.errors import UserError
from corpora.asvspoof import ASVspoof2019
from models import build_model
from scoring import engine_choice, engines, onnx_export
from scoring.engine_choice import load_engine
from scoring.engines import OnnxEngine, OpenVinoEngine, TorchEngine, open_exported
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx, largest_difference, probe_waveforms
from scoring.onnx_files import exported_path, read_exported
from scoring.weights import KNOWN, KnownCheckpoint, file_sha256
from utils import load_model

EXPORTED = [OnnxEngine, OpenVinoEngine]
NB_SAMP = TINY_MODEL["nb_samp"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A checkpoint of a tiny model with threshold 0.5."""
    return save_tiny(tmp_path_factory.mktemp("tiny") / "tiny.pth", threshold=0.5)


@pytest.fixture(scope="module")
def tiny_onnx(tiny) -> Path:
    """The same checkpoint, exported."""
    model, checkpoint = load_model(tiny)
    export_onnx(model, ModelCard.of(checkpoint, tiny), tiny.with_suffix(".onnx"))
    return tiny.with_suffix(".onnx")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty folder of weights."""
    monkeypatch.setenv("AASIST_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, env=os.environ)


def changed(path: Path, change, tmp_path: Path) -> Path:
    """A copy of an exported model, after `change` has modified it and somebody has removed the hash of its bytes."""
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("body_")]
    model.ClearField("metadata_props")
    model.metadata_props.extend(kept)
    change(model)
    (tmp_path / "changed.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "changed.onnx"


# ------------------------------------------------------------------------------------------------- the same logits


@pytest.mark.slow
def test_genuine_speech_gets_torchs_logits(shared):
    path = shared / "fixtures" / "weights" / "AASIST.pth"
    trials = ASVspoof2019(shared / "data" / "LA_mini", "LA").partition("eval")
    chunks = np.stack([fit(reading.read(trials.path(trial)), 64_600) for trial in trials.trials[:6]])
    expected = load_engine(path, "torch", device="cpu")[0].logits(chunks)
    for name in ("onnx", "openvino"):
        engine, card = load_engine(path, name)
        assert (engine.name, engine.precision, engine.nb_samp) == (name, "fp32", 64_600)
        assert card.threshold == pytest.approx(1.4934322834014893)
        np.testing.assert_allclose(engine.logits(chunks), expected, atol=1e-4)


@pytest.mark.parametrize("engine", EXPORTED)
def test_exported_models_give_torchs_logits_at_every_batch(tiny, tiny_onnx, engine):
    chunks = 0.1 * torch.randn(7, NB_SAMP, generator=torch.Generator().manual_seed(1))
    expected = TorchEngine(load_model(tiny)[0]).logits(chunks)
    assert expected.shape == (7, 2) and expected.dtype == np.float64
    exported = engine(tiny_onnx, threads=1)
    for size in (exported.batch_size, 3):
        exported.batch_size = size
        for x in (chunks, chunks.numpy()):
            np.testing.assert_allclose(exported.logits(x), expected, atol=1e-5)
    assert exported.logits(chunks[:0]).shape == (0, 2)


def test_torch_splits_batches_and_restores_the_mode(tiny):
    engine = TorchEngine(load_model(tiny)[0])
    chunks = torch.randn(9, NB_SAMP)
    for training in (True, False):
        engine.model.train(training)
        logits = engine.logits(chunks)
        assert engine.model.training is training
    with torch.inference_mode():
        np.testing.assert_allclose(logits, engine.model(chunks)[1], atol=1e-5)
    assert engine.logits(chunks.numpy()[:0]).shape == (0, 2)


def test_bf16_is_near_fp32(tiny):
    model, chunks = load_model(tiny)[0], probe_waveforms(NB_SAMP)
    fp32, bf16 = (TorchEngine(model, precision=precision).logits(chunks) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(fp32 - bf16).max() < 0.2


def test_scoring_by_an_exported_model_does_not_import_torch(tiny_onnx, tmp_path):
    soundfile.write(tmp_path / "a.wav", probe_waveforms(NB_SAMP)[0], 16_000)
    code = """
import sys
import inference
from scoring.engine_choice import load_engine
from scoring.onnx_export import probe_waveforms
_, model, audio, results = sys.argv
for engine in ("onnx", "openvino"):
    loaded, card = load_engine(model, engine)
    assert loaded.logits(probe_waveforms(loaded.nb_samp)).shape == (3, 2) and card.threshold == 0.5
    sys.argv[1:] = ["--model", model, "--audio", audio, "--engine", engine, "--save_json", results + engine]
    assert inference.main() == 0
print("torch" in sys.modules)"""
    done = python(code, tiny_onnx, tmp_path / "a.wav", tmp_path / "r.json")
    assert done.stdout.endswith("\nFalse\n"), done.stderr


# --------------------------------------------------------------------------------------------------- which engine


def test_the_exported_copy_is_made_once_and_then_preferred(tiny, cache, capsys):
    assert load_engine(tiny, device="cpu")[0].name == "torch"
    for name in ("onnx", "openvino"):
        engine, card = load_engine(tiny, name)
        assert engine.name == name and card == ModelCard.of(load_model(tiny)[1], tiny)
    assert capsys.readouterr().err.count("note: ") == 1
    assert list((cache / "onnx").iterdir()) == [exported_path(file_sha256(tiny))]
    assert load_engine(tiny, device="cpu")[0].name == "openvino"
    assert load_engine(tiny, precision="bf16", device="cpu")[0].name == "torch"


def test_an_exported_copy_has_the_name_that_its_checkpoint_has_now(tiny, tmp_path, monkeypatch):
    """The copy lasts, but a checkpoint may be renamed, or be known to a later version of this program."""
    load_engine(tiny, "onnx")
    renamed = tmp_path / "renamed.pth"
    renamed.write_bytes(tiny.read_bytes())
    assert load_engine(renamed, "onnx")[1].name == "renamed"
    monkeypatch.setitem(KNOWN, "Famous", KnownCheckpoint(file_sha256(tiny), "a week of speech"))
    for engine in ("torch", "onnx"):
        card = load_engine(renamed, engine)[1]
        assert (card.name, card.trained_on) == ("Famous", "a week of speech")


def test_a_gpu_in_the_machine_is_left_to_torch(tiny, tiny_onnx, monkeypatch):
    exported_path(file_sha256(tiny)).parent.mkdir(parents=True)
    exported_path(file_sha256(tiny)).write_bytes(tiny_onnx.read_bytes())
    monkeypatch.setattr(engine_choice, "NVIDIA", tiny)  # any file that exists
    assert load_engine(tiny)[0].name == "torch"
    assert load_engine(tiny, device="cpu")[0].name == "openvino"


@pytest.mark.parametrize(
    "engine, precision, device, words",
    [
        ("onnx", "fp32", "cuda", "computes on the CPU"),
        ("torch", "fp32", "cpu", "cannot run .* by torch"),
        ("onnx", "bf16", "cpu", "no bf16"),
        ("onnx", "int8", "cpu", "is fp32 .*export.py --int8"),
    ],
)
def test_requests_that_an_exported_model_cannot_meet(tiny_onnx, engine, precision, device, words):
    with pytest.raises(UserError, match=words):
        load_engine(tiny_onnx, engine, precision, device)


def test_requests_that_a_checkpoint_cannot_meet(tiny, tmp_path):
    with pytest.raises(UserError, match="fp32 or bf16"):
        load_engine(tiny, "torch", "int8")
    with pytest.raises(UserError, match="no int8 copy"):
        load_engine(tiny, "auto", "int8")
    with pytest.raises(UserError, match="cannot read checkpoint .*none.pth"):
        load_engine(tmp_path / "none.pth")


def test_a_note_says_that_bf16_is_emulated(tiny, capsys):
    load_engine(tiny, "torch", "bf16", "cpu")
    assert ("emulates bf16" in capsys.readouterr().err) is ("bf16" not in Path("/proc/cpuinfo").read_text())


@pytest.mark.skipif("bf16" not in Path("/proc/cpuinfo").read_text(), reason="a CPU without bf16")
def test_openvinos_bf16_is_refused_where_it_changes_scores(tmp_path):
    """It rounds Fourier transforms, too: what lies far below the rest of a spectrum is lost then."""
    torch.manual_seed(0)
    config = {"architecture": "SE_ResNet", "nb_samp": 8000, "channels": [8], "blocks": 1, "hidden": 8}
    model = build_model(config).eval()
    with torch.no_grad():
        model.out_layer.weight *= 100
    export_onnx(model, ModelCard("phase", "0" * 64, config), tmp_path / "phase.onnx")
    assert load_engine(tmp_path / "phase.onnx", "openvino")[0].precision == "fp32"
    with pytest.raises(UserError, match=r"bf16 is too coarse .*up to 0.3; use --precision fp32, or --engine torch"):
        load_engine(tmp_path / "phase.onnx", "openvino", "bf16")


def test_bf16_needs_a_cpu_that_computes_it(tiny_onnx):
    import openvino

    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engine = load_engine(tiny_onnx, "openvino", "bf16")[0]
        assert engine.precision == "bf16"
        assert np.isfinite(engine.logits(probe_waveforms(NB_SAMP))).all()
    else:
        with pytest.raises(UserError, match="this CPU computes no bf16"):
            load_engine(tiny_onnx, "openvino", "bf16")


@pytest.mark.parametrize(
    "missing, engine, words",
    [
        (["openvino"], "openvino", "openvino is missing"),
        (["onnxruntime"], "onnx", "onnxruntime is missing"),
        (["onnx"], "openvino", "onnx is missing"),
        (["openvino", "onnxruntime"], "auto", "no package runs an exported model"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(tiny_onnx, missing, engine, words):
    code = """
import sys
sys.modules |= dict.fromkeys(sys.argv[3:])
from common.command import run
from scoring.engines import open_exported
run(lambda: print(open_exported(sys.argv[1], sys.argv[2])))"""
    done = python(code, tiny_onnx, engine, *missing)
    assert done.returncode == 2
    assert words in done.stderr and "pip install -r requirements-export.txt" in done.stderr
    assert done.stderr.count("\n") == 1


def test_exporting_without_onnx_is_one_line(tiny, tmp_path):
    code = """
import sys
sys.modules["onnx"] = None
from common.command import run
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from utils import load_model
run(lambda: export_onnx(load_model(sys.argv[1])[0], ModelCard("tiny", "0" * 64, {}), sys.argv[2]))"""
    done = python(code, tiny, tmp_path / "tiny.onnx")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "onnx is missing" in done.stderr and "pip install -r requirements-export.txt" in done.stderr
    assert not list(tmp_path.iterdir())


def test_auto_takes_what_is_installed(tiny_onnx):
    code = """
import sys
sys.modules["openvino"] = None
from scoring.engines import open_exported
print(open_exported(sys.argv[1]).name)"""
    assert python(code, tiny_onnx).stdout == "onnx\n"


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert engines._threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2,2")
    assert engines._threads() == os.cpu_count()


# ----------------------------------------------------------------------------------------------- untrusted files


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04" * 50, bytes(1000)])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(UserError, match="bad.onnx"):
        load_engine(tmp_path / "bad.onnx")


def test_a_truncated_or_flipped_file_ends_in_one_error_or_in_numbers(tiny_onnx, tmp_path):
    data, rng = tiny_onnx.read_bytes(), np.random.default_rng(0)
    for number in range(20):
        damaged = bytearray(data[: rng.integers(len(data))] if number % 2 else data)
        damaged[rng.integers(len(damaged))] ^= 255
        (tmp_path / "bad.onnx").write_bytes(damaged)
        with suppress(UserError):
            assert open_exported(tmp_path / "bad.onnx").logits(probe_waveforms(NB_SAMP)).shape == (3, 2)


def test_a_model_without_a_card_is_refused(tiny_onnx, tmp_path):
    with pytest.raises(UserError, match="carries no model card"):
        load_engine(changed(tiny_onnx, lambda model: model.ClearField("metadata_props"), tmp_path))


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_no_other_file_is_read(tiny_onnx, tmp_path, where):
    def refer(model):
        constant = next(node for node in model.graph.node if node.op_type == "Constant")
        tensor = model.graph.initializer[0] if where == "initializer" else constant.attribute[0].t
        tensor.data_location = tensor.EXTERNAL
        tensor.external_data.add(key="location", value="secret")

    with pytest.raises(UserError, match="reference to another file"):
        load_engine(changed(tiny_onnx, refer, tmp_path))


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_operator_of_a_library_is_refused(tiny_onnx, tmp_path, engine):
    def invent(model):
        model.graph.node[0].op_type, model.graph.node[0].domain = "Evil", "evil.so"
        model.opset_import.add(domain="evil.so", version=1)

    with pytest.raises(UserError, match="cannot run"):
        load_engine(changed(tiny_onnx, invent, tmp_path), engine)


def test_a_chunk_of_petabytes_is_refused(tiny_onnx, tmp_path):
    def blow(model):
        model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = 1 << 50

    with pytest.raises(UserError, match="chunks of 1 to"):
        load_engine(changed(tiny_onnx, blow, tmp_path))


@pytest.mark.parametrize("number", range(4))
def test_a_flipped_bit_is_noticed(tiny_onnx, tmp_path, number):
    data = bytearray(tiny_onnx.read_bytes())
    data[len(data) * (number + 1) // 6] ^= 1 << number
    (tmp_path / "flipped.onnx").write_bytes(data)
    with pytest.raises(UserError, match="it is damaged|cannot load model"):
        open_exported(tmp_path / "flipped.onnx")


def test_a_loop_is_refused(tiny_onnx, tmp_path):
    def loop(model):
        node = model.graph.node.add(op_type="Loop")
        node.attribute.add(name="body").g.name = "body"

    with pytest.raises(UserError, match="without loops"):
        open_exported(changed(tiny_onnx, loop, tmp_path))


@pytest.mark.parametrize("bound", ["time", "memory"])
def test_a_model_without_end_or_measure_ends_with_one_line(tiny_onnx, tmp_path, monkeypatch, bound):
    def multiply(model):  # 20 times a product of matrices of 4000 x 4000; or one of 64 GiB
        size = np.array([4000, 4000] if bound == "time" else [1 << 17, 1 << 17])
        model.graph.initializer.append(onnx.numpy_helper.from_array(size, "size"))
        model.graph.node.add(op_type="Shape", input=["waveforms"], output=["shape"])
        model.graph.node.add(op_type="Sub", input=["shape", "shape"], output=["zeros"])
        model.graph.node.add(op_type="Add", input=["zeros", "size"], output=["wanted"])
        model.graph.node.add(op_type="ConstantOfShape", input=["wanted"], output=["product0"])
        for n in range(20):
            model.graph.node.add(op_type="MatMul", input=[f"product{n}", "product0"], output=[f"product{n + 1}"])
        model.graph.node.add(op_type="ReduceSum", input=["product20"], output=["sum"])
        model.graph.node.add(op_type="Add", input=["logits", "sum"], output=["more"])
        model.graph.output[0].name = "more"

    monkeypatch.setattr(engines, "GUARDED_SECONDS", 1 if bound == "time" else 30)
    with pytest.raises(UserError, match="1 s for a call, found more" if bound == "time" else "cannot run"):
        load_engine(changed(tiny_onnx, multiply, tmp_path), "onnx")[0].logits(probe_waveforms(NB_SAMP))


# ------------------------------------------------------------------------------------------------------- exporting


def test_export_is_one_file_with_the_card_and_without_selu(tiny, tiny_onnx):
    assert read_exported(tiny_onnx).card == ModelCard.of(load_model(tiny)[1], tiny)
    operators = {node.op_type for node in onnx.load(tiny_onnx).graph.node}
    assert "Elu" in operators and "Selu" not in operators
    assert tiny_onnx.stat().st_size < 1 << 20


def test_the_file_of_another_model_does_not_pass(tiny, tiny_onnx):
    assert largest_difference(load_model(tiny)[0], tiny_onnx) < onnx_export.TOLERANCE
    torch.manual_seed(1)
    assert largest_difference(build_model(TINY_MODEL).eval(), tiny_onnx) > onnx_export.TOLERANCE


def test_an_export_that_differs_is_not_written(tiny, tmp_path):
    class Fickle(torch.nn.Module):
        """Gives different logits each time, as no exported graph does."""

        nb_samp, calls = NB_SAMP, 0

        def __init__(self):
            super().__init__()
            self.inner = load_model(tiny)[0]

        def forward(self, x):
            self.calls += 1
            hidden, logits = self.inner(x)
            return hidden, logits + 0.01 * self.calls

    card = ModelCard("fickle", "0", TINY_MODEL)
    (tmp_path / "out.onnx").write_bytes(b"earlier")
    with pytest.raises(UserError, match="not written: .*logits within 0.0001"):
        export_onnx(Fickle(), card, tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() == b"earlier"
