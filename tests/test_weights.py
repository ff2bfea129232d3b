import hashlib
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from conftest import ROOT

from common.errors import UserError
from config import load_config, to_dict
from metrics.calibration import Calibration
from metrics.error_rates import compute_eer
from scoring import weights
from scoring.model_card import ModelCard
from scoring.verdict import operating_point
from scoring.weights import BUNDLED, KNOWN, OFFICIAL, locate
from utils import load_model


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `body`, piece by piece `pause` seconds apart; counts them."""

    daemon_threads = True
    status, body, pause, asked = 200, b"", 0.0, 0


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        self.send_response(self.server.status)
        self.end_headers()
        step = 1 << 16 if not self.server.pause else 16
        for first in range(0, len(self.server.body), step):
            try:
                self.wfile.write(self.server.body[first : first + step])
            except OSError:  # the client has closed the connection
                return
            time.sleep(self.server.pause)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Server:
    """A mirror that the environment names, with tmp_path/cache as the folder of weights."""
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AASIST_WEIGHTS_URL", f"http://127.0.0.1:{server.server_port}/mirror/")
        monkeypatch.setenv("AASIST_WEIGHTS", str(tmp_path / "cache"))
        yield server
        server.shutdown()


def assert_refused(tmp_path, *words: str) -> None:
    with pytest.raises(UserError) as refused:
        locate("AASIST")
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_are_downloaded_once(server, shared, tmp_path, name):
    server.body = (shared / "fixtures" / "weights" / f"{name}.pth").read_bytes()
    for _ in range(2):
        path = locate(name)
        assert path == tmp_path / "cache" / f"{name}.pth"
        assert path.read_bytes() == server.body
    assert server.asked == 1
    assert [file.name for file in path.parent.iterdir()] == [f"{name}.pth"]


def test_a_changed_download_is_refused(server, shared, tmp_path):
    good = (shared / "fixtures" / "weights" / "AASIST.pth").read_bytes()
    server.body = good[:-1] + bytes([good[-1] ^ 1])
    assert_refused(tmp_path, "not the official AASIST", OFFICIAL["AASIST"].sha256, "found")
    server.body = good[: len(good) // 2]
    assert_refused(tmp_path, "not the official AASIST")


def test_a_changed_file_in_the_cache_is_refused(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "AASIST.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=f"delete it.*{OFFICIAL['AASIST'].sha256}"):
        locate("AASIST")
    assert server.asked == 0


def test_a_failed_download_says_what_to_do(server, tmp_path):
    server.status = 404
    by_hand = f"put it at {tmp_path / 'cache' / 'AASIST.pth'}"
    assert_refused(tmp_path, "cannot download", "404", "/mirror/AASIST.pth", by_hand)
    server.shutdown()
    server.server_close()
    assert_refused(tmp_path, "cannot download", "refused", by_hand)


def test_a_file_that_is_too_large_is_not_read(server, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_BYTES", 1 << 20)
    server.body = bytes(2 << 20)
    assert_refused(tmp_path, "at most 1048576 bytes")


def test_a_slow_server_is_given_up(server, tmp_path, monkeypatch):
    server.body, server.pause = bytes(1 << 10), 0.2
    monkeypatch.setattr(weights, "DOWNLOAD_SECONDS", 0.5)  # a little now and then
    assert_refused(tmp_path, "not done in 0.5 s")
    server.pause = 5
    monkeypatch.setattr(weights, "DOWNLOAD_SECONDS", 600)
    monkeypatch.setattr(weights, "SILENT_SECONDS", 0.5)  # nothing at all
    assert_refused(tmp_path, "timed out")


def test_a_bad_address(tmp_path, monkeypatch):
    monkeypatch.setenv("AASIST_WEIGHTS_URL", "nowhere")
    monkeypatch.setenv("AASIST_WEIGHTS", str(tmp_path / "cache"))
    assert_refused(tmp_path, "cannot download nowhere/AASIST.pth")


def test_the_bundled_checkpoint_is_in_the_repository_and_whole():
    path = locate(BUNDLED)
    assert path == ROOT / "models" / "weights" / f"{BUNDLED}.pth"
    assert path.stat().st_size <= 40_000_000
    assert hashlib.sha256(path.read_bytes()).hexdigest() == KNOWN[BUNDLED].sha256
    checkpoint = load_model(path)[1]
    card = ModelCard.of(checkpoint, path)
    assert (card.name, card.trained_on) == (BUNDLED, KNOWN[BUNDLED].trained_on)
    assert "left out of training" in card.dev_scores_of and card.threshold_source.endswith(card.dev_scores_of)
    bonafide, spoof = (np.array(card.dev_scores[key]) for key in ("bonafide", "spoof"))
    assert card.calibration.llr(card.threshold) == pytest.approx(0, abs=1e-9)  # verdict and probability agree
    assert card.calibration.a > 0 and checkpoint["dev_eer"] == pytest.approx(compute_eer(bonafide, spoof).eer)
    points = [card.threshold, *(operating_point(card, None, far)[0] for far in (0.05, 0.01))]
    assert points == sorted(points)


PLACES = {"seed", "num_workers", "cache_path", "database_path", "eval_sets"}


def test_the_bundled_checkpoint_is_what_its_recipe_makes():
    checkpoint, recipe = load_model(locate(BUNDLED))[1], to_dict(load_config(ROOT / "config" / f"{BUNDLED}.conf"))
    assert {name for name, value in recipe.items() if checkpoint["config"][name] != value} <= PLACES


def test_lcnn_mixed_is_what_its_recipe_makes():
    """Three seeds of the model, data and augmentation in config/LCNN-mixed.conf, except the data's folders."""
    checkpoint, recipe = load_model(locate("LCNN-mixed"))[1], to_dict(load_config(ROOT / "config" / "LCNN-mixed.conf"))
    made, (one, together) = checkpoint["config"], (c.pop("model_config") for c in (recipe, checkpoint["config"]))
    assert checkpoint["seeds"] == [1, 2, 3] and together == one | {"members": 3 * one["members"]}
    differ = {name for name, value in recipe.items() if made.get(name, value) != value}  # newer keys are missing
    assert differ <= PLACES


def test_a_changed_bundled_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    (tmp_path / f"{BUNDLED}.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=f"not the bundled.*git checkout.*{KNOWN[BUNDLED].sha256}"):
        locate(BUNDLED)
    (tmp_path / f"{BUNDLED}.pth").unlink()
    with pytest.raises(UserError, match="cannot read checkpoint .*No such file"):
        locate(BUNDLED)


def test_a_file_goes_before_a_name_and_a_folder_does_not(server, shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server.body = (shared / "fixtures" / "weights" / "AASIST.pth").read_bytes()
    (tmp_path / "AASIST").mkdir()
    assert locate("AASIST") == tmp_path / "cache" / "AASIST.pth"
    (tmp_path / "AASIST").rmdir()
    (tmp_path / "AASIST").touch()
    assert locate("AASIST").absolute() == tmp_path / "AASIST"


@pytest.mark.parametrize("model", ["none.pth", "aasist", "", "AASIST/../x", "a\0b", "."])
def test_neither_a_file_nor_a_name(model):
    with pytest.raises(UserError, match=f"cannot read checkpoint .*one of {BUNDLED}, LCNN-mixed, AASIST, AASIST-L"):
        locate(model)


def test_card_comes_back_from_json():
    card = ModelCard("a", "00", {"nb_samp": 8000})
    full = replace(
        card,
        trained_on="LA",
        threshold=1.5,
        calibration=Calibration(2.0, -1.0),
        dev_scores={"bonafide": [1.0, 2.5], "spoof": [-3.0]},
    )
    for each in (card, full):
        assert ModelCard.from_json(each.to_json()) == each


CARD = '{"name": "a", "sha256": "0", "model_config": {}, "calibration": null'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        CARD,
        CARD + ', "other": 1}',
        CARD + ', "threshold": "high"}',
        CARD + ', "threshold": NaN}',
        CARD + ', "dev_scores": {"bonafide": [1]}}',
        CARD + ', "dev_scores": {"bonafide": ["x"], "spoof": []}}',
        CARD.replace("null", '{"a": 1}') + "}",
        CARD.replace("null", '{"a": 1, "b": []}') + "}",
        CARD.replace('"a"', "1") + "}",
    ],
)
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(UserError, match="no model card"):
        ModelCard.from_json(text)


@pytest.mark.parametrize(
    ("database_path", "name"),
    [
        ("./LA/", "LA"),  # as older checkpoints have it
        (["/data/LA"], "LA"),
        (["2019:/data/LA", "csv:/data/mine.csv", "asvspoof5:ASVspoof5/"], "LA + mine.csv + ASVspoof5"),
    ],
)
def test_a_card_names_every_training_set(database_path, name):
    config = {"model_config": {}, "track": "LA", "database_path": database_path}
    assert ModelCard.of({"sha256": "x", "config": config}, "best.pth").trained_on == f"{name} (track LA)"


@pytest.mark.parametrize(
    "fields",
    [
        {"threshold": float("nan")},
        {"threshold": "0"},
        {"threshold": True},
        {"calibration": [1, 2]},
        {"calibration": {"a": 1.0}},
        {"calibration": {"a": float("inf"), "b": 0.0}},
        {"dev_scores": 3},
        {"dev_scores": {"bonafide": [1.0]}},
        {"dev_scores": {"bonafide": [1.0], "spoof": []}},
        {"dev_scores": {"bonafide": torch.zeros(2, 2), "spoof": torch.zeros(1)}},
        {"dev_scores": {"bonafide": torch.tensor([float("nan")]), "spoof": torch.zeros(1)}},
        {"dev_scores": {"bonafide": ["x"], "spoof": [[1], [1, 2]]}},
        {"config": {"model_config": {}, "track": "LA", "database_path": 3}},
        {"config": {"model_config": {}, "track": "LA", "database_path": ["x" * 2000]}},
    ],
)
def test_fields_of_a_checkpoint_are_checked_as_those_of_a_card(fields):
    with pytest.raises(UserError, match="checkpoint best.pth: bad value of"):
        ModelCard.of({"sha256": "x", "config": {"model_config": {}}, **fields}, "best.pth")
