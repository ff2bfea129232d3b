import json

import pytest
import yaml
from conftest import ROOT

from common.errors import UserError
from config import Config, load_config, save_config, to_dict

MINIMAL = {"model_config": {"architecture": "AASIST"}}
OFFICIAL = {  # the values of a file in the authors' repository
    "database_path": "./LA/",
    "asv_score_path": "ASVspoof2019_LA_asv_scores/ASVspoof2019.LA.asv.eval.gi.trl.scores.txt",
    "model_path": "./models/weights/AASIST.pth",
    "batch_size": 24,
    "num_epochs": 100,
    "loss": "CCE",
    "track": "LA",
    "eval_all_best": "True",
    "eval_output": "eval_scores_using_best_dev_model.txt",
    "cudnn_deterministic_toggle": "True",
    "cudnn_benchmark_toggle": "False",
    "model_config": {
        "architecture": "AASIST",
        "nb_samp": 64600,
        "first_conv": 128,
        "filts": [70, [1, 32], [32, 32], [32, 64], [64, 64]],
        "gat_dims": [64, 32],
        "pool_ratios": [0.5, 0.7, 0.5, 0.5],
        "temperatures": [2.0, 2.0, 100.0, 100.0],
    },
    "optim_config": {
        "optimizer": "adam",
        "amsgrad": "False",
        "base_lr": 0.0001,
        "lr_min": 0.000005,
        "betas": [0.9, 0.999],
        "weight_decay": 0.0001,
        "scheduler": "cosine",
    },
}


def write(folder, text) -> str:
    path = folder / "some.conf"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize("indent", [None, 4, "\t"])
def test_official_json_loads_unchanged(tmp_path, indent):
    config = load_config(write(tmp_path, json.dumps(OFFICIAL, indent=indent)))
    assert config.eval_all_best is True
    assert config.cudnn_benchmark_toggle is False
    assert config.optim_config.amsgrad is False
    assert config.optim_config.lr_min == 5e-6
    assert config.model_config == OFFICIAL["model_config"]


def test_official_rawnet2_repeats_two_keys(tmp_path):
    twice = OFFICIAL | {"lr": 0.0001, "weight_decay": 0.0001}
    assert load_config(write(tmp_path, json.dumps(twice))).optim_config.base_lr == 1e-4
    with pytest.raises(UserError, match="unknown key.*'lr'"):  # another value would be ignored silently
        load_config(write(tmp_path, json.dumps(twice | {"lr": 0.01})))


@pytest.mark.parametrize("name", ["AASIST", "AASIST-L"])
def test_published_recipe(name):
    config = load_config(ROOT / "config" / f"{name}.conf")
    assert (config.batch_size, config.num_epochs, config.seed) == (24, 100, 1234)
    assert config.class_weights == (0.1, 0.9)
    optim = config.optim_config
    assert (optim.optimizer, optim.base_lr, optim.lr_min, optim.weight_decay) == ("adam", 1e-4, 5e-6, 1e-4)
    assert optim.scheduler == "cosine"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.conf")), ids=lambda path: path.name)
def test_saved_config_loads_to_the_same(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "config.conf")
    assert to_dict(load_config(tmp_path / "config.conf")) == to_dict(config)


def test_off_is_a_word_though_yaml_reads_it_as_false(tmp_path):
    assert load_config(write(tmp_path, yaml.safe_dump(MINIMAL) + "cache: off\n")).cache == "off"


def test_a_schedule_without_a_lowest_rate_does_not_ask_for_one(tmp_path):
    optimizer = {"base_lr": 1e-6, "scheduler": "none"}
    assert load_config(write(tmp_path, yaml.safe_dump(MINIMAL | {"optim_config": optimizer}))).optim_config.base_lr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batchsize": 3}, ["unknown key", "expected 'batch_size'", "found 'batchsize'"]),
        ({"optim_config": {"base_Ir": 1e-4}}, ["'optim_config.base_lr'", "'optim_config.base_Ir'"]),
        ({"swa": {"zzz": 1}}, ["one of max_dev_eer, last", "'swa.zzz'"]),
        ({"batch_size": "24"}, ["'batch_size'", "a whole number", "'24'"]),
        ({"batch_size": True}, ["'batch_size'", "a whole number", "True"]),
        ({"batch_size": 1}, ["'batch_size'", "2 or more"]),
        ({"eval_all_best": "yes"}, ["'eval_all_best'", "a boolean"]),
        ({"track": "DF"}, ["'track'", "LA, PA"]),
        ({"optim_config": {"optimizer": "adamw"}}, ["adam, sgd", "'adamw'"]),
        ({"optim_config": {"betas": [0.9]}}, ["a list of 2"]),
        ({"optim_config": {"base_lr": float("nan")}}, ["a number"]),
        ({"optim_config": {"base_lr": 0}}, ["above 0"]),
        ({"optim_config": {"base_lr": 10**400}}, ["'optim_config.base_lr'", "a number", "1000"]),
        ({"k" * 10_000: 1}, ["unknown key", "one of model_config", "kkk…'"]),
        ({"class_weights": [0, 1]}, ["above 0"]),
        ({"eval_output": "../x.txt"}, ["a file name"]),
        ({"precision": "fp16"}, ["fp32, tf32, bf16", "'fp16'"]),
        ({"cache": True}, ["off, mmap, ram, gpu", "True"]),
        ({"batch_size": 24, "accumulation_steps": 5}, ["'batch_size'", "a multiple of accumulation_steps, 10 or more"]),
        ({"batch_size": 4, "accumulation_steps": 4}, ["'batch_size'", "8 or more"]),
        ({"label_smoothing": 1.0}, ["[0, 1)"]),
        ({"compile": True, "recompute": True}, ["'recompute'", "false with compile"]),
        ({"optim_config": {"sam_rho": -0.1}}, ["'optim_config.sam_rho'", "0 or more"]),
        ({"optim_config": {"base_lr": 1e-6}}, ["'optim_config.lr_min'", "0 … base_lr 1e-06"]),
        ({"num_epochs": 20_000}, ["'num_epochs'", "1 … 10000"]),
        ({"model_config": None}, ["'model_config'", "a mapping"]),
    ],
)
def test_mistakes_are_named(tmp_path, change, words):
    with pytest.raises(UserError) as error:
        load_config(write(tmp_path, yaml.safe_dump(MINIMAL | change)))
    for word in ["some.conf", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "a mapping"),
        ("- 1", "a mapping"),
        ("{", "not YAML"),
        (b"\xff\xfe\x00", "not YAML"),
        ("seed: 1\nseed: 2", "stands twice"),
        ("a: &a [1]\nb: [*a, *a]", "aliases"),
        ("[" * 100_000, "not YAML"),
        ("a: !!python/object/apply:os.system ['touch /tmp/pwned']", "not YAML"),
        ("seed: 1", "missing key"),
        ("x" * (1 << 21), "too large"),
        ("\n".join(f"key{n}: 1" for n in range(10_000)), "unknown key"),  # time grows with the size, not its square
        ("optim_config: {base_lr: 1e400}\nmodel_config: {}", "a number, found inf"),
    ],
)
def test_no_config(tmp_path, text, word):
    with pytest.raises(UserError, match=word) as error:
        load_config(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.conf", tmp_path):
        with pytest.raises(UserError, match="cannot read config"):
            load_config(path)


def test_exponents_without_point_are_numbers(tmp_path):
    config = load_config(write(tmp_path, "model_config: {a: 1}\noptim_config: {base_lr: 1e-3, lr_min: 5E-6}"))
    assert (config.optim_config.base_lr, config.optim_config.lr_min) == (1e-3, 5e-6)


def test_defaults_are_the_recipe():
    assert to_dict(Config(model_config={}))["optim_config"]["base_lr"] == 1e-4
