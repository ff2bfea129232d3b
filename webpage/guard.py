"""What stands between visitors and gradio: requests of other sites, forged addresses, floods of logins, large bodies.

It wraps gradio's app (ASGI, https://asgi.readthedocs.io). webpage/limits.py has the numbers.
"""

import asyncio
import ipaddress
import json
import math
import shutil
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from webpage.limits import (
    LOGIN_DELAY_SECONDS,
    LOGIN_LOCK_SECONDS,
    MAX_ADDRESSES,
    MAX_LOGINS,
    MAX_REQUEST_BYTES,
    SILENT_UPLOAD_SECONDS,
)
from webpage.storage import DISK_FULL, is_full_disk
from webpage.upstream import upload_fragments

THIS_COMPUTER = ("127.0.0.1", "localhost", "::1")
FORWARDED = ("x-forwarded-host", "x-forwarded-proto", "x-forwarded-for", "forwarded")  # what a proxy sets
ASGIApp = Callable[[dict, Callable, Callable], Awaitable[None]]


class Refused(Exception):
    """A request that is answered with `status` and one sentence."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class LoginLock:
    """Counts logins by address: after `MAX_LOGINS` that failed, an address waits for `LOGIN_LOCK_SECONDS`."""

    def __init__(self) -> None:
        self.times: OrderedDict[str, list[float]] = OrderedDict()  # of logins that did not succeed (yet)

    def begin(self, address: str) -> None:
        """A login that counts as failed until `succeed`, so that many at once do not slip through. Raises Refused."""
        now = time.monotonic()
        recent = [begun for begun in self.times.get(address, ()) if now - begun < LOGIN_LOCK_SECONDS]
        if len(recent) >= MAX_LOGINS:
            minutes = (recent[0] + LOGIN_LOCK_SECONDS - now) / 60
            raise Refused(429, f"too many failed logins from your address: try again in {minutes:.0f} min")
        self.times[address] = [*recent, now]
        self.times.move_to_end(address)
        while len(self.times) > MAX_ADDRESSES:
            self.times.popitem(last=False)

    def succeed(self, address: str) -> None:
        self.times.pop(address, None)


class Guard:
    """The ASGI app around `app`.

    behind_proxy: a proxy sets the headers in `FORWARDED`; otherwise they are dropped, for anybody may send them.
    this_computer: answer only under the names of this computer, so that no site whose name leads here gets through.
    folder: where uploads go.
    """

    def __init__(self, app: ASGIApp, behind_proxy: bool, this_computer: bool, folder: Path):
        self.app, self.behind_proxy, self.this_computer, self.folder = app, behind_proxy, this_computer, folder
        self.logins = LoginLock()

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        dropped = {b"x-gradio-server", *(() if self.behind_proxy else map(str.encode, FORWARDED))}
        scope = scope | {"headers": [pair for pair in scope["headers"] if pair[0].lower() not in dropped]}
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        answer = _Answer(send)
        try:
            self._check_source(headers)
            await self._pass_on(scope, headers, receive, answer)
        except Refused as refusal:
            if not answer.begun:
                await _refuse(send, refusal)

    def _check_source(self, headers: dict[str, str]) -> None:
        """Raises Refused for a request that a page of another site makes."""
        hosts = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")[:1]]
        if self.this_computer and _split(f"//{hosts[0]}").hostname not in THIS_COMPUTER:
            raise Refused(403, "this server answers to localhost only; behind a proxy it needs --proxy")
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc.lower() not in {host.strip().lower() for host in hosts if host}:
            raise Refused(403, "a page of another site sent this request; behind a proxy the server needs --proxy")

    async def _pass_on(self, scope: dict, headers: dict[str, str], receive: Callable, answer: "_Answer") -> None:
        path = scope["path"].rstrip("/")
        if scope["method"] == "POST" and path.endswith("/login"):
            await self._log_in(scope, headers, receive, answer)
        elif scope["method"] == "POST" and path.endswith("/upload"):
            await self._upload(scope, headers, receive, answer)
        else:
            await self.app(scope, limited(receive, headers, MAX_REQUEST_BYTES), answer)

    async def _log_in(self, scope: dict, headers: dict[str, str], receive: Callable, answer: "_Answer") -> None:
        address = visitor_address(scope, headers)
        self.logins.begin(address)

        async def delayed(message: dict) -> None:
            if message.get("status") == 200:
                self.logins.succeed(address)
            elif "status" in message:
                await asyncio.sleep(LOGIN_DELAY_SECONDS)
            await answer(message)

        await self.app(scope, limited(receive, headers, MAX_REQUEST_BYTES), delayed)

    async def _upload(self, scope: dict, headers: dict[str, str], receive: Callable, answer: "_Answer") -> None:
        """Pass an upload on; whatever happens to it, nothing unfinished stays on the disk."""
        from starlette.requests import ClientDisconnect

        if shutil.disk_usage(self.folder).free < 2 * _announced_bytes(headers):  # a job decodes it, too
            raise Refused(507, DISK_FULL)
        fragments: list[str] = []
        upload_fragments.set(fragments)
        try:
            await self.app(scope, limited(receive, headers), answer)
        except ClientDisconnect:
            raise Refused(400, "the upload broke off") from None
        except OSError as error:
            if not is_full_disk(error):
                raise
            raise Refused(507, DISK_FULL) from error
        finally:
            for fragment in fragments:
                Path(fragment).unlink(missing_ok=True)


class _Answer:
    """`send` of ASGI that knows whether the answer has begun."""

    def __init__(self, send: Callable):
        self.send, self.begun = send, False

    async def __call__(self, message: dict) -> None:
        self.begun = True
        await self.send(message)


def limited(receive: Callable, headers: dict[str, str], most: float = math.inf) -> Callable:
    """`receive` of ASGI for a body of at most `most` bytes, whose sender is never silent for long. Raises Refused."""
    received, whole = 0, False

    def check(count: int) -> None:
        if count > most:
            raise Refused(413, f"a request has at most {most:,} bytes")

    check(_announced_bytes(headers))

    async def receive_part() -> dict:
        nonlocal received, whole
        if whole:  # what follows is only the end of the connection, which may take any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), SILENT_UPLOAD_SECONDS)
        except TimeoutError:
            return {"type": "http.disconnect"}
        received += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        check(received)
        return message

    return receive_part


def _announced_bytes(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdecimal() else 0


def visitor_address(scope: dict, headers: dict[str, str]) -> str:
    """The visitor's address, as the proxy in front wrote it last; of IPv6 the network, whose addresses one may own."""
    forwarded = headers.get("x-forwarded-for", "").split(",")[-1].strip()
    address = forwarded or (scope.get("client") or ("unknown",))[0]
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return str(ipaddress.ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


def _split(address: str) -> SplitResult:
    """The parts of an address; none if it is malformed."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _refuse(send: Callable, refusal: Refused) -> None:
    body = json.dumps({"detail": str(refusal)}).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
