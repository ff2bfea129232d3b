"""SSL-AASIST on tiny encoders saved by transformers: what is trained, what checkpoints hold, which files are needed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import (
    ROOT,
    assert_same_run,
    assert_user_error,
    events,
    run_command,
    same,
    save_tiny,
    the_run,
    train_mini,
    weights,
)
from forks import Command, on_step

from common.errors import UserError
from config import Config, OptimConfig, load_config
from models import build_model
from models.ssl_encoder import EncoderConfig
from scoring.detector import Detector
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from training.optimization import Stepper
from utils import load_checkpoint, load_model, save_checkpoint

transformers = pytest.importorskip("transformers")
BACK_END = {
    "architecture": "SSL_AASIST",
    "nb_samp": 4000,
    "filts": [9, [1, 4], [4, 4], [4, 4], [4, 4]],
    "gat_dims": [4, 4],
    "pool_ratios": [0.5, 0.5, 0.5, 0.5],
    "temperatures": [2.0, 2.0, 100.0, 100.0],
}
SIZES = {
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": [8, 8, 8], "conv_stride": [5, 4, 8], "conv_kernel": [10, 8, 8], "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "num_codevectors_per_group": 4, "codevector_dim": 8, "proj_codevector_dim": 8,
}  # fmt: skip
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}  # as XLS-R has it
KINDS = {
    "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForPreTraining, STABLE, True),
    "wavlm": (transformers.WavLMConfig, transformers.WavLMModel, {}, False),
    "hubert": (transformers.HubertConfig, transformers.HubertModel, {}, True),
}
X = 0.1 * torch.randn(4, 4000, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 1, 0])

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """A folder for each kind of encoder, as `save_pretrained` writes it. Tests must not change it."""
    folder = tmp_path_factory.mktemp("encoders")
    for kind, (config, model, more, normalise) in KINDS.items():
        torch.manual_seed(0)
        model(config(**SIZES | more)).save_pretrained(folder / kind)
        transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder / kind)
    return folder


def make(encoders: Path, kind: str = "wav2vec2", **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(BACK_END | {"encoder": str(encoders / kind)} | changes)


def stepper(model: torch.nn.Module, optim: dict | None = None, **options) -> Stepper:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    config = Config(model_config=BACK_END, optim_config=OptimConfig(**optim or {}), **options)
    return Stepper(model.train(), config, steps_per_epoch=5)


def encoder_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.ssl_model.state_dict().items()}


def copied(encoders: Path, folder: Path, **config: object) -> Path:
    """A copy of the wav2vec 2.0 folder with changes in config.json."""
    shutil.copytree(encoders / "wav2vec2", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | config))
    return folder


# ------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_weighted_by_a_softmax(encoders, kind):
    """The layers are those of transformers' own model, for input from its own feature extractor."""
    model = make(encoders, kind).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(encoders / kind)
    x = extractor(list(X.numpy()), sampling_rate=16_000, return_tensors="pt").input_values
    assert extractor.do_normalize == KINDS[kind][3] == (not torch.equal(x, X))
    theirs = transformers.AutoModel.from_pretrained(encoders / kind).eval()(x, output_hidden_states=True)
    layers = [*theirs.hidden_states[:2], theirs.last_hidden_state]
    with torch.no_grad():
        torch.testing.assert_close(model.represent(X), sum(layers) / 3, rtol=1e-4, atol=1e-5)
        model.layer_weights.copy_(torch.tensor([0.0, 1.0, 2.0]).log())
        torch.testing.assert_close(model.represent(X), layers[1] / 3 + layers[2] * 2 / 3, rtol=1e-4, atol=1e-5)


def test_nodes_are_attentive_means(encoders):
    """With equal attention everywhere they are plain means, and the graphs get these."""
    model, seen = make(encoders).eval(), []
    torch.nn.init.zeros_(model.attention[-1].weight)
    original = model.classify_nodes
    model.classify_nodes = lambda *nodes: (seen.extend(nodes), original(*nodes))[1]
    with torch.no_grad():
        e = model.encode(X)
        hidden, logits = model.classify(e)
    assert (e.shape, hidden.shape, logits.shape) == ((4, 4, 3, 8), (4, 20), (4, 2))
    torch.testing.assert_close(seen[0], e.mean(dim=3).transpose(1, 2) + model.pos_S)
    torch.testing.assert_close(seen[1], e.mean(dim=2).transpose(1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_learnt_weight_gets_a_gradient(encoders, kind):
    """Several processes would wait for a parameter without a gradient."""
    model = make(encoders, kind).train()
    model(X)[1].square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(p.requires_grad for p in model.ssl_model.parameters())
    assert len(model.encoder_parameters()) == len(list(model.ssl_model.parameters()))


def test_the_same_seed_trains_the_same_whatever_numpy_draws(encoders):
    outputs = []
    for _ in range(2):
        model = make(encoders).train()
        torch.manual_seed(3)
        outputs.append(model(X)[1])
    assert torch.equal(*outputs)


def test_a_frozen_encoder_stays_as_it_is(encoders):
    model = make(encoders, freeze=True)
    before = encoder_of(model)
    step = stepper(model)
    assert model.training and not any(module.training for module in model.ssl_model.modules())
    head = model.LL.weight.clone()
    for number in range(3):
        step([(X, Y)], 1.0, number)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder_of(model).items())
    assert not torch.equal(head, model.LL.weight)
    assert all(p.grad is None for p in model.ssl_model.parameters())
    assert model.layer_weights.grad is not None
    assert model.encoder_parameters() == []


def test_the_encoder_has_a_learning_rate_of_its_own(encoders):
    """The schedule scales both; a first step of Adam moves each weight by its learning rate."""
    optim = {"base_lr": 1e-3, "encoder_lr": 1e-5, "lr_min": 0.0, "weight_decay": 0.0, "scheduler": "cosine"}
    model = make(encoders)
    step = stepper(model, optim, num_epochs=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step([(X, Y)], 1.0, 5)  # halfway
    assert [group["lr"] for group in step.optimizer.param_groups] == pytest.approx([5e-4, 5e-6])
    for name, p in model.named_parameters():
        if p.requires_grad and p.grad.abs().max() > 1e-4:
            expected = 5e-6 if name.startswith("ssl_model.") else 5e-4
            assert (p - before[name]).abs().max().item() == pytest.approx(expected, rel=0.02), name
    fresh = stepper(make(encoders), optim, num_epochs=2)
    fresh.load_state_dict(step.state_dict())
    assert [group.get("share", 1.0) for group in fresh.optimizer.param_groups] == pytest.approx([1.0, 0.01])


def test_a_learning_rate_for_no_encoder_is_refused(encoders):
    aasist = build_model(load_config(ROOT / "config" / "demo.conf").model_config)
    for model in (aasist, make(encoders, freeze=True)):
        with pytest.raises(UserError, match="optim_config.encoder_lr.*no encoder is learnt"):
            stepper(model, {"encoder_lr": 1e-5})
    with pytest.raises(UserError, match="optim_config.encoder_lr.*above 0"):
        OptimConfig(encoder_lr=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_activations_give_the_same_gradients(encoders, kind):
    """With the encoder's dropout, which has to draw the same numbers twice."""
    kept, ran = {}, []
    for recompute in (False, True):
        model = make(encoders, kind)
        config = Config(model_config=BACK_END, recompute=recompute)
        step = Stepper(model.train(), config, steps_per_epoch=5)
        first = model.ssl_model.encoder.layers[0].attention
        count = []
        first.register_forward_hook(lambda *_, count=count: count.append(1))
        torch.manual_seed(5)
        step([(X, Y)], 1.0, 0)
        kept[recompute] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        ran.append(len(count))
    assert ran == [1, 2]
    assert kept[False].keys() == kept[True].keys()
    assert all(torch.equal(kept[False][name], kept[True][name]) for name in kept[True])


def test_half_precision_is_close(encoders):
    model = make(encoders).eval()
    with torch.inference_mode():
        exact = model(X)[1]
        with torch.autocast("cpu", torch.bfloat16):
            assert model.represent(X).dtype == torch.float32
            half = model(X)[1]
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() < 0.05


BACK_ENDS = {
    "SSL_AASIST": {key: BACK_END[key] for key in ("filts", "gat_dims", "pool_ratios", "temperatures")},
    "SSL_SLS": {"features": 8},
    "SSL_Conformer": {"features": 8, "blocks": 1, "heads": 2, "kernel_size": 3},
    "SSL_Nes2Net": {"groups": [2, 2], "pooling": "attention"},
}


@pytest.mark.parametrize("architecture", BACK_ENDS)
def test_every_back_end_is_exported_and_learns(encoders, tmp_path, architecture):
    """export.py's own gate checks the exported logits; a step gives a gradient to every parameter."""
    pytest.importorskip("onnxruntime")
    own = {"architecture": architecture, "nb_samp": 4000, "encoder": str(encoders / "wav2vec2")}
    torch.manual_seed(0)
    model = build_model(own | BACK_ENDS[architecture]).eval()
    card = ModelCard("tiny", "0" * 64, model.model_config)
    assert export_onnx(model, card, tmp_path / "tiny.onnx") < 1e-4
    model.train()(X)[1].square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


# -------------------------------------------------------------------------------------------- what is kept with weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_needs_no_folder(encoders, tmp_path, kind):
    shutil.copytree(encoders / kind, tmp_path / "encoder")
    model = build_model(BACK_END | {"encoder": str(tmp_path / "encoder")}).eval()
    path = save_tiny(tmp_path / "tiny.pth", config={"model_config": model.model_config}, model=model.state_dict())
    shutil.rmtree(tmp_path / "encoder")
    loaded, checkpoint = load_model(path)
    assert checkpoint["config"]["model_config"]["encoder_config"]["model_type"] == kind
    with torch.inference_mode():
        expected = model(X)[1]
        assert torch.equal(loaded(X)[1], expected)
    scores = Detector.from_checkpoint(path, device="cpu", engine="torch").score(X)
    torch.testing.assert_close(torch.from_numpy(scores), expected[:, 1].double(), rtol=1e-5, atol=1e-6)


def test_old_files_load_too(encoders, tmp_path):
    """pytorch_model.bin, with the parameter names of torch's former weight norm in the positional convolution."""
    folder = copied(encoders, tmp_path / "old")
    (folder / "model.safetensors").unlink()
    tensors = transformers.Wav2Vec2ForPreTraining.from_pretrained(encoders / "wav2vec2").state_dict()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    assert any(name.endswith("weight_g") for name in tensors)
    torch.save(tensors, folder / "pytorch_model.bin")
    ours, theirs = (make(parent, kind).state_dict() for parent, kind in ((tmp_path, "old"), (encoders, "wav2vec2")))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def encoder_config(encoders: Path, **changes: object) -> dict:
    """A `model_config` with `encoder_config`, so that the encoder is made and not read."""
    known = make(encoders).model_config
    return known | {"encoder_config": known["encoder_config"] | changes}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "whisper"}, "encoder_config.model_type.*wav2vec2, wavlm, hubert"),
        ({"num_hidden_layers": 10**6}, "encoder_config.num_hidden_layers"),
        ({"num_hidden_layers": 1000}, "at most 256 layers"),
        ({"hidden_size": 32_768, "num_hidden_layers": 2}, "at most 2.5e.09 parameters"),
        ({"conv_dim": [8]}, "encoder_config.conv_dim"),
        ({"conv_stride": [1, 1, 1]}, "model_config.nb_samp.*3 … 3000 frames"),
        ({"conv_stride": [5, 0, 8]}, "encoder_config.conv_stride"),
        ({"num_attention_heads": 3}, "cannot make the encoder"),
        ({"hidden_dropout": 2.0}, "cannot make the encoder"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "unknown key"),
        ({"hidden_size": "8"}, "encoder_config.hidden_size.*whole number"),
    ],
)
def test_architectures_of_others_are_checked(encoders, change, words):
    with pytest.raises(UserError, match=words):
        build_model(encoder_config(encoders, **change))


def test_parameters_are_counted_before_they_are_made(encoders):
    for kind in KINDS:
        model = make(encoders, kind, encoder_config=None)
        values = model.model_config["encoder_config"]
        config = EncoderConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        matrices = sum(p.numel() for p in model.ssl_model.parameters() if p.dim() > 1)
        assert config.parameters() == pytest.approx(matrices, rel=0.5)
        assert config.frames(4000) == model.represent(X).shape[1] == 24


def test_bare_weights_are_not_looked_up_on_the_hub(encoders, tmp_path, monkeypatch):
    """Recognising bare weights does not fetch the encoders that the configs name."""
    torch.save(make(encoders).state_dict(), tmp_path / "bare.pth")
    monkeypatch.setattr(transformers.PreTrainedConfig, "get_config_dict", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="of no known architecture"):
        load_model(tmp_path / "bare.pth")


# ------------------------------------------------------------------------------------------------- what users get wrong


def test_transformers_may_be_missing(encoders):
    code = f"""
import sys; sys.modules["transformers"] = None
from common.command import run
from models import build_model
run(lambda: build_model({BACK_END | {"encoder": str(encoders / "wavlm")}!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert_user_error(done, "needs transformers", "expected pip install -r requirements-ssl.txt")


def test_nothing_else_imports_transformers():
    code = "import sys, main, inference, models.AASIST; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "transformers" not in done.stdout.split()


def spoilt(encoders: Path, folder: Path, what: str) -> str:
    """The folder of an encoder that cannot be used."""
    if what == "nothing":
        return str(folder)
    copied(encoders, folder)
    if what == "empty":
        (folder / "config.json").unlink()
    elif what == "text":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif what == "no JSON":
        (folder / "config.json").write_text("{")
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "broken weights":
        (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    elif what == "too few weights":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 3}))
    elif what == "other weights":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"hidden_size": 16}))
    elif what == "other rate":
        (folder / "preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    elif what == "code":
        values = json.loads((folder / "config.json").read_text())
        values |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    return str(folder)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "cannot load encoder .*a folder or a name on the hub"),
        ("empty", "model_type wav2vec2, wavlm, hubert"),
        ("text", "of no known kind.*model_type wav2vec2, wavlm, hubert, found 'bert'"),
        ("no JSON", "cannot load encoder"),
        ("no weights", "cannot load encoder"),
        ("broken weights", "cannot load encoder"),
        ("too few weights", "lacks weights.*encoder.layers.2.*missing"),
        ("other weights", "cannot load encoder"),
        ("other rate", "16000 Hz, found 8000"),
        ("code", "of no known kind.*found 'own'"),
    ],
)
def test_what_is_no_encoder_is_named(encoders, tmp_path, what, words):
    name = spoilt(encoders, tmp_path / "spoilt", what)
    with pytest.raises(UserError, match=words) as found:
        build_model(BACK_END | {"encoder": name})
    assert "\n" not in str(found.value)
    assert not (tmp_path / "spoilt" / "ran").exists()


def test_without_the_hub_the_error_is_one_line(tmp_path):
    code = f"""
from common.command import run
from models import build_model
run(lambda: build_model({BACK_END | {"encoder": "someone/something"}!r}))
"""
    command = [sys.executable, "-c", code]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert_user_error(done, "cannot load encoder someone/something")


def test_a_missing_preprocessor_config_is_said(encoders, tmp_path, capsys):
    folder = copied(encoders, tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    assert make(tmp_path, "bare").do_normalize
    assert "has no preprocessor_config.json" in capsys.readouterr().err
    assert not make(tmp_path, "bare", do_normalize=False).do_normalize
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": None}, "model_config.encoder.*a folder, a name"),
        ({"nb_samp": 500}, "model_config.nb_samp"),
        ({"first_conv": 128}, "unknown key"),
        ({"freeze": "yes"}, "model_config.freeze.*boolean"),
        ({"filts": [2, [1, 4], [4, 4], [4, 4], [4, 4]]}, "model_config.filts"),
    ],
)
def test_wrong_model_configs_are_named(encoders, change, words):
    with pytest.raises(UserError, match=words):
        make(encoders, **change)


def test_frequency_masking_is_refused(encoders):
    with pytest.raises(UserError, match="freq_aug.*no filter bank"):
        make(encoders)(X, freq_aug=True)


# ------------------------------------------------------------------------------------------------------------ commands


def recipe(encoders: Path, **model: object) -> dict:
    """Changes to `conftest.MINI`."""
    return {
        "model_config": BACK_END | {"encoder": str(encoders / "wav2vec2")} | model,
        "optim_config": {"base_lr": 1e-3, "encoder_lr": 1e-4},
        "freq_aug": False,
        "num_epochs": 1,
    }


def test_a_run_its_weights_and_its_scores(encoders, tiny_corpus, tmp_path):
    """The encoder's folder is deleted before inference.py and main.py --eval score the weights."""
    encoder = copied(encoders, tmp_path / "wav2vec2")
    run = train_mini(tmp_path, tiny_corpus, **recipe(tmp_path))
    assert load_config(run / "config.conf").model_config == recipe(tmp_path)["model_config"]  # as it was given
    assert events(run)[0]["event"] == "start"
    before = make(tmp_path).state_dict()
    changed = [name for name, tensor in weights(run, "best").items() if not torch.equal(tensor, before[name])]
    assert any(name.startswith("ssl_model.encoder.layers.1") for name in changed)
    shutil.rmtree(encoder)
    audio = next((tiny_corpus / "ASVspoof2019_LA_eval" / "flac").glob("*.flac"))
    done = run_command("inference.py", "--model", run / "weights" / "best.pth", "--audio", audio, "--engine", "torch")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    best = run / "weights" / "best.pth"
    config = yaml.safe_load((run / "config.conf").read_text()) | {"model_path": str(best)}
    (tmp_path / "eval.conf").write_text(yaml.safe_dump(config))
    arguments = ["--config", tmp_path / "eval.conf", "--eval", "--output_dir", tmp_path / "eval"]
    done = Command(tmp_path, "main.py", *arguments).wait()
    assert done.returncode == 0, done.stderr
    scores = next((tmp_path / "eval").glob("*/scores/*.txt")).read_text()
    assert scores == (run / "scores" / "eval_best.txt").read_text()


@pytest.mark.parametrize("freeze", [False, True])
def test_a_killed_run_ends_like_one_that_was_not(encoders, tiny_corpus, tmp_path, freeze):
    """It is resumed without its encoder's folder."""
    encoder = copied(encoders, tmp_path / "wav2vec2")
    options = recipe(tmp_path, freeze=freeze) | {"num_epochs": 2, "save_every_steps": 1}
    if freeze:
        options["optim_config"] = {"base_lr": 1e-3}
    whole = train_mini(tmp_path / "whole", tiny_corpus, **options)
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "mini.conf").write_text(yaml.safe_dump(yaml.safe_load((whole / "config.conf").read_text())))
    arguments = ["--config", folder / "mini.conf", "--output_dir", folder / "runs"]
    prelude = on_step(6, "os.kill(os.getpid(), signal.SIGKILL)")
    assert Command(folder, "main.py", *arguments, prelude=prelude).wait().returncode == -9
    shutil.rmtree(encoder)
    done = Command(folder, "main.py", "--resume", the_run(folder)).wait()
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, the_run(folder))
    if freeze:
        pretrained = encoder_of(make(encoders))
        kept = {n.removeprefix("ssl_model."): t for n, t in weights(whole, "swa").items() if n.startswith("ssl_model.")}
        assert all(torch.equal(pretrained[name], kept[name]) for name in pretrained)


def test_a_folder_that_is_missing_leaves_no_run(tiny_corpus, tmp_path):
    (tmp_path / "bad.conf").write_text(yaml.safe_dump(recipe(tmp_path / "nowhere") | {"batch_size": 6}))
    arguments = ["--config", tmp_path / "bad.conf", "--database_path", tiny_corpus, "--output_dir", tmp_path / "runs"]
    assert_user_error(run_command("main.py", *arguments), "cannot load encoder", "nowhere")
    assert not (tmp_path / "runs").exists()


def test_the_published_recipe_is_readable():
    config = load_config(ROOT / "config" / "SSL_AASIST.conf")
    assert config.optim_config.base_lr == 1e-6 and config.batch_size == 14
    assert config.model_config["encoder"] == "facebook/wav2vec2-xls-r-300m"


def test_initial_weights_bring_their_encoder(encoders, tmp_path):
    """--init needs no encoder folder, unless the config names another encoder than the checkpoint."""
    from training.model import load_initial

    encoder = copied(encoders, tmp_path / "encoder")
    model = build_model(BACK_END | {"encoder": str(encoder)})
    fields = {"config": {"model_config": model.model_config}, "model": model.state_dict()}
    save_checkpoint(tmp_path / "a.pth", fields)
    shutil.rmtree(encoder)
    loaded = load_initial(Config(model_config=BACK_END | {"encoder": str(encoder)}), str(tmp_path / "a.pth"))
    assert same(loaded.state_dict(), model.state_dict())
    with pytest.raises(UserError, match="cannot load encoder"):
        load_initial(Config(model_config=BACK_END | {"encoder": "./other"}), str(tmp_path / "a.pth"))
    assert load_checkpoint(tmp_path / "a.pth")["config"]["model_config"]["do_normalize"] is True


def test_a_random_encoder_learns_two_tones(encoders):
    """End to end: 30 steps tell a low tone from a high one."""
    t = torch.arange(4000) / 16_000
    hertz = torch.tensor([300.0, 3000.0])[Y][:, None]
    x = torch.sin(2 * torch.pi * hertz * t + torch.arange(4)[:, None])
    step = stepper(make(encoders), {"base_lr": 3e-3, "lr_min": 0.0})
    losses = [step([(x, Y)], 1.8, 0).item() for _ in range(30)]
    assert losses[-1] < 0.2 * F.cross_entropy(torch.zeros(4, 2), Y).item() * 4 / 1.8
