"""The web page as people use it: on a server of its own, in a real browser and through gradio_client.

CHROMIUM is the browser (default: /usr/bin/chromium) and AXE the file axe.min.js; tests that need a missing one are
skipped. Screenshots of the tests are in results/webpage/. test_webpage.py tests the page without a server.
"""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import ROOT, assert_user_error, run_command, save_tiny

from audio import SAMPLE_RATE, reading
from corpora.asvspoof import ASVspoof2019
from scoring.detector import Detector
from scoring.weights import BUNDLED
from webpage.limits import MAX_CHUNK_BUTTONS

gradio_client = pytest.importorskip("gradio_client", reason="needs requirements-app.txt")
RATE = SAMPLE_RATE
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE = Path(os.environ.get("AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
SCREENS = ROOT / "results" / "webpage"
NASTY = "<img src=x onerror=alert(1)>.wav"
TINY = "extra/tiny.pth"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """The tiny checkpoint, calibrated, in extra/; beside it a link out of the folder, and a file without a model."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "extra").mkdir()
    save_tiny(folder / "extra" / "tiny.pth", dev_eer=0.25)
    save_tiny(folder / "outside.pth", dev_eer=0.25)
    (folder / "extra" / "link.pth").symlink_to(folder / "outside.pth")
    (folder / "extra" / "broken.pth").write_bytes(b"no checkpoint")
    return folder


@pytest.fixture(scope="module")
def server(shared, folders, tmp_path_factory):
    """A running page: url, the folder of its temporary files, and what it printed."""
    weights = tmp_path_factory.mktemp("weights")
    for name in ("AASIST.pth", "AASIST-L.pth"):
        (weights / name).write_bytes((shared / "fixtures" / "weights" / name).read_bytes())
    yield from serve(tmp_path_factory.mktemp("temporary"), weights, "--models", folders / "extra", "--max_mb", 40,
                     "--max_minutes", 12, "--model", "AASIST")  # fmt: skip


def serve(temporary: Path, weights: Path, *arguments: object):
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "AASIST_WEIGHTS": str(weights), "TMPDIR": str(temporary)}
    log = temporary.parent / f"{temporary.name}.log"
    command = [sys.executable, "gradio_app.py", "--port", port, *arguments]
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        while "http://" not in log.read_text():
            assert process.poll() is None and time.monotonic() < started + 60, log.read_text()
            time.sleep(0.1)
        yield SimpleNamespace(url=f"http://127.0.0.1:{port}", temporary=temporary, log=log, process=process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert list(temporary.iterdir()) == []  # uploads and results are gone


@pytest.fixture(scope="module")
def speech(shared) -> dict[str, Path]:
    """The longest file of each class."""
    partition = ASVspoof2019(shared / "data" / "LA_mini", "LA").partition("eval")
    paths = {key: [partition.path(t) for t in partition.trials if t.key == key] for key in ("bonafide", "spoof")}
    return {key: max(found, key=lambda path: soundfile.info(path).duration) for key, found in paths.items()}


@pytest.fixture(scope="module")
def ten_minutes(speech, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "ten minutes.flac"
    soundfile.write(path, np.resize(reading.read(speech["bonafide"]), 600 * RATE), RATE)
    return path


# ------------------------------------------------------------------------------------------------------- the browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip(f"needs Chromium at {CHROMIUM} (or where CHROMIUM says)")
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server, request):
    """The page, open. Requests to other hosts, console errors, dialogs and uncaught errors fail the test."""
    width = getattr(request, "param", 1280)
    context = browser.new_context(viewport={"width": width, "height": 900}, permissions=["microphone"])
    page, faults = context.new_page(), []
    page.on("request", lambda sent: sent.url.startswith(("http", "ws")) and not sent.url.startswith(server.url)
            and faults.append(sent.url))  # fmt: skip
    page.on("console", lambda message: message.type == "error" and faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.goto(server.url)
    page.locator("#check").wait_for()
    page.faults = faults
    yield page
    SCREENS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "_", request.node.name).strip("_")
    page.screenshot(path=SCREENS / f"{name}.png", full_page=True)
    context.close()
    assert faults == []


def upload(page, path: Path) -> None:
    page.locator("#audio input[type=file]").set_input_files(path)
    page.get_by_label("Clear").wait_for()


def check(page, path: Path | None = None, timeout: float = 60) -> str:
    """Upload, press Check, wait until everything is drawn; returns the verdict's heading."""
    if path:
        upload(page, path)
    page.locator("#check").click()
    heading = page.locator("#verdict h2")
    heading.wait_for(timeout=1000 * timeout)
    page.locator("#check:not([disabled])").wait_for(timeout=60_000)
    return heading.inner_text()


def choose(page, label: str, text: str) -> None:
    page.get_by_label(label).first.click()
    page.get_by_role("option", name=text).click()


def open_tab(page, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
    else:  # on a narrow screen behind "…"
        page.locator(".overflow-menu > button:visible").last.click()
        page.locator(".overflow-dropdown button:visible", has_text=name).click()


@pytest.mark.slow
@pytest.mark.parametrize("page", [1280, 390], indirect=True)
@pytest.mark.parametrize("key", ["bonafide", "spoof"])
def test_verdict_on_genuine_files(page, speech, key: str):
    assert check(page, speech[key]).endswith({"bonafide": "Bona fide", "spoof": "Spoof"}[key])
    card = page.locator("#verdict").inner_text()
    assert speech[key].name in card and "trained on ASVspoof2019 LA" in card and "1.4934" in card
    page.locator("#scores img").wait_for()
    for name in ("Waveform", "Spectrogram"):
        open_tab(page, name)
        page.locator(f"#{name.lower()} img").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
def test_m4a_video_and_examples(page, speech, tmp_path):
    encode(speech["spoof"], tmp_path / "speech.m4a")
    assert check(page, tmp_path / "speech.m4a").endswith("Spoof")
    page.get_by_label("Clear").click()
    encode(speech["bonafide"], tmp_path / "speech.mp4", picture=True)
    with page.expect_file_chooser() as chooser:
        page.locator("#other").click()
    chooser.value.set_files(tmp_path / "speech.mp4")
    page.get_by_label("Clear").wait_for()
    assert "Bona fide" in recheck(page, "speech.mp4")
    page.get_by_label("Clear").click()
    page.get_by_role("button", name="Example: spoof").click()
    page.get_by_label("Clear").wait_for()
    recheck(page, "made_up_spoof.wav")


def recheck(page, name: str) -> str:
    """Check again; returns the card when it is about the file `name`."""
    page.locator("#check").click()
    card = page.locator("#verdict .card", has_text=name)
    card.wait_for(timeout=60_000)
    page.locator("#check:not([disabled])").wait_for(timeout=60_000)
    return card.inner_text()


def encode(source: Path, target: Path, picture: bool = False) -> None:
    import av

    samples = (reading.read(source) * 32767).astype(np.int16)[None]
    with av.open(str(target), "w") as out:
        video = out.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p") if picture else None
        stream = out.add_stream("aac", rate=RATE, bit_rate=128_000)
        stream.layout = "mono"
        if picture:
            frames = [av.VideoFrame(64, 64, "yuv420p") for _ in range(5)]
            for number, frame in enumerate(frames):
                frame.pts = number
                out.mux(video.encode(frame))
            out.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.rate = RATE
        out.mux(stream.encode(frame))
        out.mux(stream.encode())


@pytest.mark.slow
def test_long_file_shows_progress_and_can_be_cancelled(page, ten_minutes, speech):
    upload(page, ten_minutes)
    page.locator("#check").click()
    first = page.locator("#verdict", has_text=re.compile(r"chunk [1-9]\d* of 297"))
    first.wait_for(timeout=60_000)
    assert page.locator("#verdict progress").get_attribute("value")
    page.locator("#cancel_check").click()
    page.locator("#verdict", has_text="Cancelled.").wait_for(timeout=10_000)
    page.get_by_label("Clear").click()
    assert "Bona fide" in check(page, speech["bonafide"], timeout=30)  # the server is free again


@pytest.mark.slow
def test_ten_minutes(page, ten_minutes):
    choose(page, "Model", "tiny")
    assert check(page, ten_minutes, timeout=120)
    assert "10:00 min" in page.locator("#verdict").inner_text()
    open_tab(page, "Chunks")
    assert page.locator(".chunk").count() == MAX_CHUNK_BUTTONS


@pytest.mark.slow
def test_microphone(page):
    page.get_by_label("Record audio").click()
    page.get_by_role("button", name="Record", exact=True).click()
    time.sleep(2)
    # The player shows the recording at once, and fetches the file when the server has it.
    with page.expect_request(re.compile("/file=.*audio")):
        page.get_by_role("button", name="Stop", exact=True).first.click()
    assert check(page)
    assert "s · AASIST" in page.locator("#verdict").inner_text()


@pytest.mark.slow
def test_broken_file_and_nothing(page, tmp_path):
    page.locator("#check").click()
    page.get_by_role("alert").get_by_text("upload or record speech first").wait_for()
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    upload(page, tmp_path / "broken.wav")
    card = recheck(page, "broken.wav")
    assert "Cannot say" in card and "cannot read audio broken.wav" in card and "/tmp" not in card
    # The browser's own player reports it too; nothing else may.
    page.faults[:] = [fault for fault in page.faults if "MediaError" not in fault]


@pytest.mark.slow
def test_names_and_settings_are_harmless(page, tmp_path):
    soundfile.write(tmp_path / NASTY, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    choose(page, "Model", "tiny")
    assert check(page, tmp_path / NASTY)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("own", exact=True).check()
    page.get_by_label("Own threshold").fill("1000")
    page.get_by_label("Own threshold").blur()
    page.locator("#check").click()
    page.locator("#verdict .spoof dd", has_text="1000.0000").wait_for()
    assert page.locator("#verdict img").count() == 0
    open_tab(page, "Several files")
    page.locator("#uploads input[type=file]").set_input_files(tmp_path / NASTY)
    page.locator("#uploads").get_by_text("onerror").first.wait_for()
    page.locator("#check_all").click()
    page.locator("#several li").first.wait_for()
    assert page.locator("#table img").count() == 0


@pytest.mark.slow
def test_chunks_are_played_by_keyboard_alone(page, speech):
    upload(page, speech["spoof"])
    page.locator("#check").focus()
    page.keyboard.press("Enter")
    page.locator("#verdict h2").wait_for(timeout=30_000)
    page.locator("#check:not([disabled])").wait_for(timeout=60_000)
    page.get_by_role("tab", name="Chunks").focus()
    page.keyboard.press("Enter")
    page.locator(".passage").wait_for()
    page.locator(".passage").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#chunks audio').currentTime > 0")


FOCUSED = """() => {
  const here = document.activeElement;
  return [...(here.labels || []), here].map(element => element.ariaLabel || element.innerText).join(" ");
}"""


@pytest.mark.slow
def test_keyboard_reaches_everything(page):
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    text = "\n".join(reached)
    for name in ("Model", "Settings", "One recording", "Drop an audio file", "Record audio", "Video, other",
                 "Example: spoof", "Check", "Scores"):  # fmt: skip
        assert name in text, (name, reached)


@pytest.mark.slow
def test_compare(page, speech):
    upload(page, speech["spoof"])
    open_tab(page, "Compare models")
    choose(page, "Models to compare", "tiny")
    page.keyboard.press("Escape")
    page.locator("#compare").click()
    rows = page.locator("#comparison tbody tr")
    rows.first.wait_for(timeout=60_000)
    cells = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows.all()}
    assert [*cells] == [BUNDLED, "LCNN-mixed", "AASIST", "AASIST-L", TINY]
    assert cells[BUNDLED][3].endswith("%")
    assert "spoof" in cells["AASIST"][0] and cells["AASIST"][2] == "1.49"
    assert "cannot say" in cells["AASIST-L"][0] and cells[TINY][3].endswith("%")


@pytest.mark.slow
def test_exports(page, speech, tmp_path, shared):
    check(page, speech["spoof"])
    open_tab(page, "Export")
    saved = {}
    for kind in ("json", "csv", "png", "pdf"):
        with page.expect_download() as download:
            page.locator(f"#save_{kind}").click()
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
        assert saved[kind].name == f"{speech['spoof'].stem}.{kind}"
    found = json.loads(saved["json"].read_text())
    detector = Detector.from_checkpoint(shared / "fixtures" / "weights" / "AASIST.pth", "cpu")
    expected = detector.score_file(speech["spoof"])
    assert found["schema"] == "aasist.inference/2" and found["results"][0]["verdict"] == "spoof"
    assert found["results"][0]["file"] == speech["spoof"].name
    assert found["results"][0]["score"] == pytest.approx(expected.score, abs=1e-4)
    assert found["results"][0]["conditions"] == expected.to_dict()["conditions"]
    with saved["csv"].open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["spoof"]
    from matplotlib import image

    assert image.imread(saved["png"]).shape[1] == 2100  # 7 inches at 300 dots
    pdf = saved["pdf"].read_bytes()
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", pdf)) == 1


@pytest.mark.slow
def test_several_files(page, speech, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    open_tab(page, "Several files")
    page.locator("#uploads input[type=file]").set_input_files([*speech.values(), tmp_path / "broken.wav"])
    page.locator("#uploads").get_by_text("broken").first.wait_for()
    page.locator("#check_all").click()
    page.locator("#several li").first.wait_for(timeout=60_000)
    assert page.locator("#several li").all_inner_texts() == ["1 bona fide", "1 spoof", "1 unreadable"]
    page.locator("#chart img").wait_for()
    with page.expect_download() as download:
        page.locator("#save_all").click()
    download.value.save_as(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        verdicts = {row["file"]: row["verdict"] for row in csv.DictReader(file)}
    assert verdicts == {path.name: key for key, path in speech.items()} | {"broken.wav": "abstain"}
    assert names_in_table(page) == [*(path.name for path in speech.values()), "broken.wav"]
    page.locator("#table [role=columnheader]:visible").first.hover()
    page.locator("#table [aria-label='Open cell menu']:visible").first.click()
    page.get_by_text("Sort ascending").click()
    page.wait_for_timeout(300)
    assert names_in_table(page) == sorted(verdicts)


def names_in_table(page) -> list[str]:
    cells = page.locator("#table [role=gridcell][data-col='0']").all()
    return [cell.inner_text() for cell in sorted(cells, key=lambda cell: cell.bounding_box()["y"])]


GRADIOS_OWN = {  # violations of its widgets: rule, and what marks the element
    ("label-content-name-mismatch", "upload-container"),  # "Drop an audio file": its text has other words
    ("label-content-name-mismatch", "playback icon"),  # "Adjust playback speed": its text is "1x"
    ("nested-interactive", "common.upload"),  # the button for more files contains the browser's own
}


@pytest.mark.slow
def test_accessibility(page, speech):
    if not AXE.exists():
        pytest.skip(f"needs axe-core at {AXE} (or where AXE says)")
    page.add_script_tag(path=AXE)
    found = axe(page)
    check(page, speech["spoof"])
    for name in ("Chunks", "Compare models", "Export", "Several files", "About the numbers"):
        open_tab(page, name)
        found += axe(page)
    foreign = [
        (rule, html) for rule, html in found if not any(rule == own and mark in html for own, mark in GRADIOS_OWN)
    ]
    assert foreign == []


def axe(page) -> list[tuple[str, str]]:
    """The serious violations, each as rule and element."""
    page.wait_for_timeout(400)  # colours change during transitions
    violations = page.evaluate("axe.run()")["violations"]
    serious = [violation for violation in violations if violation["impact"] in ("serious", "critical")]
    return [(violation["id"], node["html"][:200]) for violation in serious for node in violation["nodes"]]


# ------------------------------------------------------------------------------------------------------------ the API


def call(server, *data, name: str = "score") -> str:
    """The answer to a request that a malicious client makes."""
    import httpx

    answer = httpx.post(f"{server.url}/gradio_api/call/{name}", json={"data": data})
    if answer.status_code != 200:
        return answer.text
    with httpx.stream("GET", f"{server.url}/gradio_api/call/{name}/{answer.json()['event_id']}", timeout=60) as stream:
        return "".join(stream.iter_text())


REST = ("AASIST", None, None, 0.5, "mean")


@pytest.mark.slow
def test_only_uploads_are_read(server, speech):
    import httpx

    meta = {"meta": {"_type": "gradio.FileData"}}
    link = next(server.temporary.iterdir()) / "uploads" / "link.flac"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(speech["spoof"])
    paths = [
        "/etc/passwd",
        "../../etc/passwd",
        str(speech["spoof"]),
        "gradio_app.py",
        str(link),
        "http://example.com/x.wav",
    ]
    for path in paths:
        for file in ({"path": path}, {"path": path, **meta}, path, {"path": "x", "url": f"file://{path}", **meta}):
            answer = call(server, file, *REST)
            assert "event: error" in answer, (file, answer)
            assert "root:" not in answer and "/" not in answer.replace("/x.wav", ""), (file, answer)
    link.unlink()
    for path in ("/etc/passwd", "../../../../../etc/passwd", str(speech["spoof"]), str(ROOT / "gradio_app.py")):
        assert httpx.get(f"{server.url}/gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.slow
def test_only_listed_models_are_loaded(server, folders, speech):
    client, file = connect(server), gradio_client.handle_file(speech["spoof"])
    labels = client.predict(api_name="/models")
    assert list(labels)[:4] == [BUNDLED, "LCNN-mixed", "AASIST", "AASIST-L"] and "dev EER" in labels[BUNDLED]
    assert "dev EER 25.00 %" in labels[TINY] and "made_up" in labels[TINY]
    assert not labels.keys() & {"extra/link.pth", "extra/broken.pth"}
    for model in ("../../etc/passwd", str(folders / "outside.pth"), "extra/../outside.pth", "extra/link.pth", "/", ""):
        with pytest.raises(Exception, match="no such model"):
            client.predict(file, model, api_name="/score")
    with pytest.raises(Exception, match=r"^cannot load checkpoint|not a checkpoint") as error:
        client.predict(file, "extra/broken.pth", api_name="/score")
    assert str(folders.parent) not in str(error.value)


def connect(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.mark.slow
def test_settings_through_the_api(server, speech):
    client, file = connect(server), gradio_client.handle_file(speech["spoof"])
    document = client.predict(file, TINY, target_far=0.25, prior_spoof=0.1, aggregate="min", api_name="/score")
    settings = document["settings"]
    assert settings["aggregate"] == "min" and settings["prior_spoof"] == pytest.approx(0.1)
    assert settings["threshold"] == 0.25 and document["engine"]["name"] == "torch"
    for wrong in ({"prior_spoof": 7}, {"aggregate": "<b>"}, {"threshold": 1e99}, {"target_far": -1}):
        with pytest.raises(Exception, match="expected"):
            client.predict(file, TINY, **wrong, api_name="/score")


@pytest.mark.slow
def test_too_long_and_too_large(server, tmp_path):
    import httpx

    soundfile.write(tmp_path / "long.flac", np.zeros(13 * 60 * RATE, np.float32), RATE)
    result = connect(server).predict(gradio_client.handle_file(tmp_path / "long.flac"), TINY, api_name="/score")
    assert result["results"][0]["conditions"][0]["name"] == "too_long"
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("x.wav", bytes(41 << 20))}, timeout=60)
    assert answer.status_code == 413


@pytest.mark.slow
def test_foreign_requests_are_refused_and_broken_uploads_leave_nothing(server):
    """The guard (test_guard.py) stands in front of gradio, and gradio's fragments are where it looks for them."""
    import httpx

    foreign = {"Origin": "http://evil.example"}
    address, file = f"{server.url}/gradio_api/upload", {"files": ("x.wav", b"sound")}
    assert httpx.post(address, files=file, headers=foreign).status_code == 403
    assert httpx.post(address, files=file, headers={"Origin": server.url}).status_code == 200
    forged = {"X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil.example"}
    assert "evil" not in httpx.get(f"{server.url}/config", headers=forged).text
    assert httpx.get(server.url, headers={"Host": "evil.example"}).status_code == 403
    uploads = next(server.temporary.iterdir()) / "uploads"
    head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="x.wav"\r\n\r\n'
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as broken:
            broken.sendall(f"{head}Content-Length: 9999999\r\n\r\n{part}".encode() + bytes(1 << 20))
            wait_until(lambda: fragments(uploads))
        wait_until(lambda: not fragments(uploads))


def fragments(uploads: Path) -> list[Path]:
    """Unfinished uploads; gradio itself leaves empty files when it refuses an address."""
    return [path for path in uploads.iterdir() if path.is_file() and path.stat().st_size]


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_twenty_at_once_get_their_own_results(server, folders, tmp_path):
    rng, paths = np.random.default_rng(0), [tmp_path / f"{number}.wav" for number in range(20)]
    for path in paths:
        soundfile.write(path, rng.uniform(0.01, 0.3) * rng.standard_normal(RATE), RATE)
    detector = Detector.from_checkpoint(folders / "extra" / "tiny.pth", "cpu")
    expected = {path.name: detector.score_file(path).score for path in paths}
    assert len(set(expected.values())) == 20

    def visit(path: Path) -> list[dict]:
        client = connect(server)
        return [
            client.predict(gradio_client.handle_file(path), TINY, api_name="/score")["results"][0] for _ in range(2)
        ]

    with ThreadPoolExecutor(20) as pool:
        found = [result for results in pool.map(visit, paths) for result in results]
    assert {result["file"] for result in found} == expected.keys()
    for result in found:
        assert result["score"] == pytest.approx(expected[result["file"]], abs=1e-5)


@pytest.mark.slow
def test_uploads_are_removed_and_an_open_server_warns(shared, tmp_path, speech):
    options = ["--server_name", "0.0.0.0", "--keep_minutes", 0.05]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = serve(temporary, shared / "fixtures" / "weights", *options)
    server = next(running)
    assert "warning: without --auth" in server.log.read_text()
    assert connect(server).predict(gradio_client.handle_file(speech["spoof"]), api_name="/score")
    deadline = time.monotonic() + 30
    while [path for path in temporary.rglob("*.flac") if path.is_file()]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    port = server.url.rpartition(":")[2]
    assert_user_error(run_command("gradio_app.py", "--port", port), "port", "in use")
    assert next(running, None) is None


# --------------------------------------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "arguments", [["--port", "0"], ["--auth", "nobody"], ["--models", "nowhere"], ["--max_mb", "0"], ["--mod", "x"]]
)
def test_wrong_arguments(arguments: list[str]):
    assert_user_error(run_command("gradio_app.py", *arguments), arguments[0])
