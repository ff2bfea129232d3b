"""What stands between visitors and gradio, without a server; and the page's folder on the disk."""

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

from common.errors import UserError
from webpage import guard, storage
from webpage.formatting import error_sentence
from webpage.guard import Guard, LoginLock, Refused, visitor_address
from webpage.limits import LOGIN_LOCK_SECONDS, MAX_ADDRESSES, MAX_LOGINS, MAX_REQUEST_BYTES
from webpage.upstream import upload_fragments

pytest.importorskip("starlette", reason="needs requirements-app.txt")
HOST = {"host": "page.example:8080"}


class App:
    """Stands for gradio: reads the body, then answers `status`, or raises `error`."""

    def __init__(self, status: int = 200, error: Exception | None = None):
        self.status, self.error, self.headers, self.bodies = status, error, [], []

    async def __call__(self, scope, receive, send):
        from starlette.requests import Request

        self.headers.append(dict(Request(scope).headers))
        self.bodies.append(await Request(scope, receive).body())
        if self.error:
            raise self.error
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def ask(
    guarded: Guard,
    headers: dict[str, str] = HOST,
    path: str = "/gradio_api/call/score",
    parts: Sequence[bytes | None] = (b"",),
    client: str = "192.0.2.7",
) -> tuple[int, bytes]:
    """Status and body of the answer to a POST request. parts: of its body; None: the connection ends."""
    sent, waiting = [], list(parts)

    async def receive() -> dict:
        if not waiting:
            await asyncio.sleep(3600)
        part = waiting.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(waiting) or parts[-1:] == [b"more"]}

    async def send(message: dict) -> None:
        sent.append(message)

    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": pairs,
        "client": (client, 1),
        "query_string": b"",
    }
    asyncio.run(guarded(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def make(app: App, folder: Path = ROOT, behind_proxy: bool = False, this_computer: bool = False) -> Guard:
    return Guard(app, behind_proxy, this_computer, folder)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch):
    monkeypatch.setattr(guard, "LOGIN_DELAY_SECONDS", 0)


# ------------------------------------------------------------------------------------------ where requests come from


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),  # a program
        ("http://page.example:8080", 200),
        ("https://Page.Example:8080", 200),
        ("http://evil.example", 403),
        ("http://page.example", 403),  # another port is another site
        ("http://page.example:8080.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
def test_a_request_of_another_sites_page_is_refused(origin, status):
    app = App()
    assert ask(make(app), HOST if origin is None else HOST | {"origin": origin})[0] == status
    assert len(app.headers) == (status == 200)


def test_forwarded_headers_count_only_behind_a_proxy():
    forged = HOST | {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
    forged |= {"X-Gradio-Server": "http://evil.example", "forwarded": "host=evil.example"}
    app = App()
    assert ask(make(app), forged)[0] == 200 and "evil" not in str(app.headers) and "https" not in str(app.headers)
    assert ask(make(app), forged | {"origin": "https://evil.example"})[0] == 403
    proxied = forged | {"x-forwarded-host": "public.example", "origin": "https://public.example"}
    assert ask(make(app, behind_proxy=True), proxied)[0] == 200
    assert app.headers[-1]["x-forwarded-host"] == "public.example" and "x-gradio-server" not in app.headers[-1]
    assert ask(make(app, behind_proxy=True), proxied | {"origin": "https://evil.example"})[0] == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:8080", 200), ("localhost", 200), ("[::1]:8080", 200), ("evil.example:8080", 403), ("[", 403)],
)
def test_a_page_for_this_computer_has_no_other_name(host, status):
    """A site may let its own name lead to 127.0.0.1, and then its pages have the page's origin."""
    assert ask(make(App(), this_computer=True), {"host": host, "origin": f"http://{host}"})[0] == status


@pytest.mark.parametrize(
    ("headers", "client", "address"),
    [
        ({}, "192.0.2.7", "192.0.2.7"),
        ({"x-forwarded-for": "203.0.113.9, 198.51.100.4"}, "192.0.2.7", "198.51.100.4"),  # the proxy's own is the last
        ({}, "2001:db8::1:2:3:4", "2001:db8::/64"),
        ({}, "?" * 100, "?" * 64),
        ({"x-forwarded-for": "::ffff:203.0.113.5"}, "192.0.2.7", "203.0.113.5"),
    ],
)
def test_the_visitors_address(headers, client, address):
    assert visitor_address({"client": (client, 1)}, headers) == address


# ------------------------------------------------------------------------------------------------------------ logins


def test_an_address_is_locked_out_for_a_while_after_failed_logins(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    wrong = App(status=400)
    guarded = make(wrong)
    assert [ask(guarded, path="/login/")[0] for _ in range(MAX_LOGINS + 2)] == [400] * MAX_LOGINS + [429] * 2
    assert len(wrong.headers) == MAX_LOGINS  # gradio never compared the others
    assert b"try again in 5 min" in ask(guarded, path="/login")[1]
    forged = HOST | {"x-forwarded-for": "203.0.113.9"}
    assert ask(guarded, forged, "/login")[0] == 429  # no other address by a header
    assert ask(guarded, path="/login", client="192.0.2.8")[0] == 400  # others are not locked out
    assert ask(guarded)[0] == 400  # nor are those who are logged in
    now[0] += LOGIN_LOCK_SECONDS + 1
    wrong.status = 200
    assert ask(guarded, path="/login")[0] == 200


def test_a_login_that_succeeds_forgets_those_that_failed():
    app = App(status=400)
    guarded = make(app)
    for _ in range(3):
        assert [ask(guarded, path="/login")[0] for _ in range(MAX_LOGINS - 1)] == [400] * (MAX_LOGINS - 1)
        app.status = 200
        assert ask(guarded, path="/login")[0] == 200
        app.status = 400


def test_logins_at_once_count_before_they_fail():
    lock = LoginLock()
    for _ in range(MAX_LOGINS):
        lock.begin("a")
    with pytest.raises(Refused, match="too many failed logins"):
        lock.begin("a")
    for number in range(MAX_ADDRESSES + 10):
        lock.begin(str(number))
    assert len(lock.times) == MAX_ADDRESSES


# ------------------------------------------------------------------------------------------------- bodies and uploads


def test_a_large_request_is_refused_whether_it_says_so_or_not():
    app = App()
    assert ask(make(app), HOST | {"content-length": str(MAX_REQUEST_BYTES + 1)})[0] == 413 and not app.bodies
    assert ask(make(app), parts=[bytes(1 << 20)] * 5)[0] == 413 and not app.bodies
    assert ask(make(app), path="/login", parts=[bytes(1 << 20)] * 5)[0] == 413
    assert ask(make(app), parts=[bytes(1 << 20)] * 4)[0] == 200
    assert ask(make(app), path="/gradio_api/upload", parts=[bytes(1 << 20)] * 5)[0] == 200  # gradio limits each file


class UploadApp(App):
    """Writes the upload to a temporary file, as gradio does; gradio renames it when it is whole."""

    def __init__(self, folder: Path, **options):
        super().__init__(**options)
        self.folder = folder

    async def __call__(self, scope, receive, send):
        fragment = self.folder / "tmpfragment"
        fragment.write_bytes(b"half")
        upload_fragments.get().append(str(fragment))
        await super().__call__(scope, receive, send)
        fragment.rename(self.folder / "whole.wav")


def upload(folder: Path, parts: list, **options) -> tuple[int, bytes]:
    return ask(make(UploadApp(folder, **options), folder), path="/gradio_api/upload", parts=parts)


def test_nothing_stays_of_an_upload_that_fails(tmp_path, monkeypatch):
    assert upload(tmp_path, [b"a", None])[0] == 400
    monkeypatch.setattr(guard, "SILENT_UPLOAD_SECONDS", 0.05)
    assert upload(tmp_path, [b"more"])[0] == 400  # its sender falls silent
    answer = upload(tmp_path, [b"a"], error=OSError(errno.ENOSPC, "No space left on device"))
    assert answer == (507, b'{"detail": "the server\'s disk is full: try again later"}')
    with pytest.raises(RuntimeError):
        upload(tmp_path, [b"a"], error=RuntimeError("a bug"))
    assert not [*tmp_path.iterdir()]
    assert upload(tmp_path, [b"a"])[0] == 200 and [path.name for path in tmp_path.iterdir()] == ["whole.wav"]


def test_an_upload_larger_than_the_disk_is_refused_before_it_is_written(tmp_path):
    app = UploadApp(tmp_path)
    headers = HOST | {"content-length": str(10**18)}
    assert ask(make(app, tmp_path), headers, "/gradio_api/upload")[0] == 507 and not app.headers


# ------------------------------------------------------------------------------------------------- the page's folder


@pytest.fixture
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")
    return tmp_path


def test_a_start_removes_what_killed_servers_left_and_nothing_else(own_temporary_folder):
    folder = own_temporary_folder
    code = "from webpage.storage import temporary_files\nwith temporary_files(): print('there', flush=True); input()"
    command, environment = [sys.executable, "-c", code], os.environ | {"TMPDIR": str(folder)}
    servers = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    for one in servers:
        assert one.stdout.readline() == b"there\n"
    running, killed = servers
    for own in folder.glob("aasist_page_*"):
        (own / "uploads" / "speech.wav").write_bytes(b"speech")
    killed.kill()
    killed.wait()
    others = [folder / "aasist_data", folder / "aasist_page_new"]  # the second: not locked yet by its server
    for other in others:
        other.mkdir()
    with storage.temporary_files() as uploads:
        left = {path.name for path in folder.iterdir()}
        assert len(left) == 4 and {other.name for other in others} | {uploads.parent.name} < left
    running.communicate(b"\n")
    assert {path.name for path in folder.iterdir()} == {other.name for other in others}


def test_what_has_not_changed_for_long_is_removed_whatever_it_is(tmp_path, monkeypatch):
    for name in ("a/speech.wav", "tmpfragment", "b/c/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(ROOT)
    storage.remove_old_uploads(tmp_path, 60)
    assert len([*tmp_path.rglob("*")]) == 7
    now = time.time()
    monkeypatch.setattr(storage.time, "time", lambda: now + 100)
    storage.remove_old_uploads(tmp_path, 60)
    assert not any(path.is_file() or path.is_symlink() for path in tmp_path.rglob("*")) and (ROOT / "main.py").exists()
    monkeypatch.setattr(storage.time, "time", lambda: now + 200)
    storage.remove_old_uploads(tmp_path, 60)  # of folders, whose last change was the removal
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def fail(error: Exception) -> str:
        with pytest.raises(Exception) as caught, storage.full_disk_named(tmp_path):
            raise error
        return error_sentence(caught.value)

    assert fail(OSError(errno.ENOSPC, "No space left on device")) == storage.DISK_FULL
    assert fail(RuntimeError("System error.")) == "something went wrong on the server"
    assert fail(UserError("no such model")) == "no such model"
    monkeypatch.setattr(storage, "NEARLY_FULL", 1 << 60)  # libsndfile says only "System error."
    assert fail(RuntimeError("System error.")) == storage.DISK_FULL
    assert fail(UserError("no such model")) == "no such model"
