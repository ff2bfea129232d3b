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
def longest_first(shared) -> dict[str, list[Path]]:
    """The files of each class."""
    partition = ASVspoof2019(shared / "data" / "LA_mini", "LA").partition("eval")
    paths = {key: [partition.path(t) for t in partition.trials if t.key == key] for key in ("bonafide", "spoof")}
    return {key: sorted(found, key=lambda path: -soundfile.info(path).duration) for key, found in paths.items()}


@pytest.fixture(scope="module")
def speech(longest_first) -> dict[str, Path]:
    """The longest file of each class."""
    return {key: paths[0] for key, paths in longest_first.items()}


@pytest.fixture(scope="module")
def spliced(longest_first, tmp_path_factory) -> Path:
    """26 s of genuine speech with 8 s of a clear spoof from 0:08 on."""
    path = tmp_path_factory.mktemp("spliced") / "spliced.flac"
    genuine = np.concatenate([reading.read(file) for file in longest_first["bonafide"][:6]])[: 26 * RATE]
    spoof = np.resize(reading.read(longest_first["spoof"][3]), 8 * RATE)
    soundfile.write(path, np.concatenate([genuine[: 8 * RATE], spoof, genuine[8 * RATE :]]), RATE)
    return path


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
    page.locator("#drop input[type=file]").set_input_files(path)
    page.locator("#drop").wait_for(state="hidden")


def check(page, path: Path | None = None, timeout: float = 60) -> str:
    """Upload, press Check, wait until everything is drawn; returns the finding."""
    if path:
        upload(page, path)
    page.locator("#check").click()
    page.locator(".verdict").wait_for(timeout=1000 * timeout)
    drawn = page.locator("#prediction img, #prediction .card:not(:has-text('Drawing'))")
    drawn.first.wait_for(state="attached", timeout=60_000)
    return finding(page)


def finding(page) -> str:
    """The word on the card, without its sign and the probability."""
    return page.locator(".verdict h2").inner_text().split("\n")[0].strip("✓?⚠◐– ").partition("  ")[0]


def clear(page) -> None:
    """Remove the recording; the verdict goes with it."""
    page.get_by_role("button", name="Clear", exact=True).click()
    page.locator("#drop").wait_for()
    page.locator(".intro").wait_for()


def open_settings(page) -> None:
    page.get_by_role("button", name="Model and settings").click()


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
def test_verdicts_are_in_view_and_leave_with_what_they_were_made_from(page, speech):
    assert check(page, speech["bonafide"]).startswith("Likely genuine")
    card = page.locator("#verdict").inner_text()
    assert speech["bonafide"].name in card and "trained on ASVspoof2019 LA" in card
    page.wait_for_timeout(700)  # of scrolling
    assert 0 <= page.locator(".verdict h2").bounding_box()["y"] < 600
    page.locator("summary").click()
    assert "1.4934" in page.locator(".verdict dl").inner_text()
    for name in ("Waveform", "Spectrogram"):
        open_tab(page, name)
        page.locator(f"#{name.lower()} img.on-light").wait_for()
    clear(page)
    assert not page.locator("#details").is_visible()
    assert check(page, speech["spoof"]).startswith("Likely synthetic")
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENS / f"dark_{page.viewport_size['width']}.png", full_page=True)
    open_settings(page)
    choose(page, "Model", "tiny")
    page.locator(".intro").wait_for()
    assert not page.locator("#details").is_visible() and "made_up" not in page.locator("#verdict").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.slow
def test_webm_spliced_and_noisy_files_and_an_example(page, speech, spliced, tmp_path):
    encode_webm(speech["bonafide"], tmp_path / "speech.webm")
    assert check(page, tmp_path / "speech.webm").startswith("Likely genuine")
    clear(page)
    assert check(page, spliced).startswith("Mixed")
    page.locator(".verdict .play").click()
    page.wait_for_function("document.querySelector('.verdict audio').currentTime > 3")
    clear(page)
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(5 * RATE), RATE)
    assert check(page, tmp_path / "noise.wav") == "Cannot say"
    assert page.locator(".gauge").count() == 0 and "%" not in page.locator(".verdict h2").inner_text()
    page.get_by_role("button", name="Synthetic: eSpeak").click()
    page.locator(".verdict", has_text="synthetic_espeak.flac").wait_for(timeout=30_000)


def recheck(page, name: str) -> str:
    """Check again; returns the card when it is about the file `name`."""
    page.locator("#check").click()
    card = page.locator("#verdict .card", has_text=name)
    card.wait_for(timeout=60_000)
    return card.inner_text()


def encode_webm(source: Path, target: Path) -> None:
    """A video file with Opus sound, whose type the browser calls video/webm."""
    import av

    samples = (reading.read(source) * 32767).astype(np.int16)[None]
    with av.open(str(target), "w") as out:
        video = out.add_stream("libvpx", rate=5, width=64, height=64, pix_fmt="yuv420p")
        stream = out.add_stream("libopus", rate=48_000, layout="mono", bit_rate=128_000)
        for number in range(5):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            out.mux(video.encode(frame))
        out.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.rate = RATE
        for resampled in av.AudioResampler("flt", "mono", 48_000).resample(frame):
            out.mux(stream.encode(resampled))
        out.mux(stream.encode())


@pytest.mark.slow
def test_ten_minutes_show_progress_and_can_be_cancelled(page, ten_minutes):
    upload(page, ten_minutes)
    page.locator("#check").click()
    first = page.locator("#verdict", has_text=re.compile(r"chunk [1-9]\d* of 297"))
    first.wait_for(timeout=60_000)
    assert page.locator("#verdict progress").get_attribute("value")
    page.locator("#cancel_check").click()
    page.locator("#verdict", has_text="Cancelled.").wait_for(timeout=10_000)
    open_settings(page)
    choose(page, "Model", "tiny")
    assert check(page, timeout=120)  # the server is free again
    assert "10:00" in page.locator("#verdict").inner_text()
    open_tab(page, "Per-chunk analysis")
    assert page.locator(".chunk").count() == MAX_CHUNK_BUTTONS


@pytest.mark.slow
def test_microphone(page):
    page.get_by_role("button", name="Record", exact=True).click()
    time.sleep(2)
    # The player shows the recording at once, and fetches the file when the server has it.
    with page.expect_request(re.compile("/file=.*audio")):
        page.get_by_role("button", name="Stop", exact=True).first.click()
    assert check(page)
    assert "· AASIST" in page.locator("#verdict").inner_text()


@pytest.mark.slow
def test_no_file_a_broken_file_and_a_hostile_name(page, tmp_path, speech):
    page.locator("#check").click()
    page.get_by_role("alert").get_by_text("upload or record speech first").wait_for()
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    upload(page, tmp_path / "broken.wav")
    card = recheck(page, "broken.wav")
    assert "Cannot say" in card and "annot read audio broken.wav" in card and "/tmp" not in card
    # The browser's own player reports it too; nothing else may.
    page.faults[:] = [fault for fault in page.faults if "MediaError" not in fault]
    clear(page)
    soundfile.write(tmp_path / NASTY, reading.read(speech["bonafide"]), RATE)
    open_settings(page)
    page.get_by_label("own", exact=True).check()
    page.get_by_label("Own threshold").fill("1000")
    page.get_by_label("Own threshold").blur()
    assert check(page, tmp_path / NASTY).startswith("Likely synthetic")
    page.locator("summary").click()
    assert "1000.0000" in page.locator(".verdict dl").inner_text()
    assert page.locator("#verdict img").count() == 0
    open_tab(page, "Several files")
    page.locator("#uploads input[type=file]").set_input_files(tmp_path / NASTY)
    page.locator("#uploads").get_by_text("onerror").first.wait_for()
    page.locator("#check_all").click()
    page.locator("#several li").first.wait_for()
    assert page.locator("#table img").count() == 0 and page.locator("#table tbody tr").count() == 1


FOCUSED = """() => {
  const here = document.activeElement;
  return [...(here.labels || []), here].map(element => element.ariaLabel || element.innerText).join(" ");
}"""


@pytest.mark.slow
def test_everything_is_reached_and_chunks_are_played_by_keyboard_alone(page, speech):
    page.locator("#check:not([disabled])").wait_for()
    page.locator("body").click(position={"x": 2, "y": 2})
    reached = []
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(FOCUSED))
    text = "\n".join(reached)
    for name in ("One recording", "upload", "Record", "Genuine: a novel", "Check", "Model and settings"):
        assert name in text, (name, reached)
    upload(page, speech["spoof"])
    page.locator("#check").focus()
    page.keyboard.press("Enter")
    page.locator(".verdict").wait_for(timeout=30_000)
    page.get_by_role("tab", name="Per-chunk analysis").focus()
    page.keyboard.press("Enter")
    page.locator("#chunks .play").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#chunks audio').currentTime > 0")


@pytest.mark.slow
def test_comparison_and_exports(page, speech, tmp_path, shared):
    check(page, speech["spoof"])
    open_tab(page, "Compare models")
    choose(page, "Models to compare", "tiny")
    page.keyboard.press("Escape")
    page.locator("#compare").click()
    rows = page.locator("#comparison tbody tr")
    rows.nth(4).wait_for(timeout=60_000)
    cells = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows.all()}
    assert [*cells] == [BUNDLED, "LCNN-mixed", "AASIST", "AASIST-L", TINY]
    assert cells[BUNDLED][1].endswith("%") and cells[TINY][1].endswith("%")
    assert "synthetic" in cells["AASIST"][0] and cells["AASIST"][4] == "1.49" and "Cannot say" in cells["AASIST-L"][0]
    assert "agree" in page.locator(".agreement").inner_text()
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
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", pdf)) == 2


@pytest.mark.slow
def test_several_files(page, speech, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF no audio")
    open_tab(page, "Several files")
    page.locator("#uploads input[type=file]").set_input_files([*speech.values(), tmp_path / "broken.wav"])
    page.locator("#uploads").get_by_text("broken").first.wait_for()
    page.locator("#check_all").click()
    page.locator("#several li").first.wait_for(timeout=60_000)
    assert [text.split()[-1] for text in page.locator("#several li").all_inner_texts()] == [
        "synthetic",
        "genuine",
        "Unreadable",
    ]
    assert page.locator("#several .gauge i").count() == 2
    with page.expect_download() as download:
        page.locator("#save_all").click()
    download.value.save_as(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        verdicts = {row["file"]: row["verdict"] for row in csv.DictReader(file)}
    assert verdicts == {path.name: key for key, path in speech.items()} | {"broken.wav": "abstain"}
    worst_first = [speech["spoof"].name, speech["bonafide"].name, "broken.wav"]
    assert page.locator("#table tbody button").all_inner_texts() == worst_first
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=SCREENS / "several_files_390.png", full_page=True)
    page.locator("#table tbody button").nth(1).click()
    page.locator(".verdict", has_text=speech["bonafide"].name).wait_for(timeout=30_000)
    assert finding(page).startswith("Likely genuine")


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
    for name in ("Per-chunk analysis", "Compare models", "Export", "Several files", "About"):
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
