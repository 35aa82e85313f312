"""Events of recording sessions told to web servers: a POST of JSON for each.

In: events, from any thread, which never waits here. Out: requests, one at a time and in order for each URL, from a
thread of its own. An event that a server does not take is tried again, after a while that doubles, `TRIES` times; what
waits is bounded, and the oldest makes way. Redirections are not followed. Where to is the operator's settings alone to
say; nothing of an event becomes part of the URL or of a header.

A request has `Content-Type: application/json`, `X-Spanrec-Delivery` (the same in each try of one event) and
`X-Spanrec-Time` (Unix time of the try); with a secret also `X-Spanrec-Signature: sha256=HEX`, the HMAC-SHA256 of the
time, a full stop and the body.
"""

import hmac
import http.client
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from time import time
from urllib.parse import urlsplit
from uuid import uuid4

from recorder.siprec.control import SessionEvent
from recorder.siprec.session_json import event_json
from recorder.siprec.sip_settings import Webhook, secret

BACKLOG = 1000
"""Events that wait for one URL."""
TRIES = 6
FIRST_WAIT = 1.0
"""s before the second try."""
LONGEST_WAIT = 60.0
_AGAIN = frozenset({408, 425, 429, *range(500, 600)})
"""Answers after which it is tried again; others say that it never will be taken."""


class Webhooks:
    """All URLs, between `start` and `close`."""

    def __init__(self, hooks: Sequence[Webhook], note: Callable[[str], None]) -> None:
        """`note` is told in a sentence what could not be delivered. Raises SpanrecError where a secret cannot be
        read."""
        self._senders = [_Sender(each, note) for each in hooks]

    def start(self) -> None:
        """Deliver from now on."""
        for sender in self._senders:
            sender.thread.start()

    def tell(self, event: SessionEvent) -> None:
        """Something happened."""
        body = b""
        for sender in self._senders:
            if event.kind in sender.hook.events:
                body = body or event_json(event)
                sender.put(body)

    def close(self, patience: float = 3.0) -> None:
        """Try once more what waits, for at most `patience` s, and end."""
        for sender in self._senders:
            sender.end()
        for sender in self._senders:
            if sender.thread.is_alive():
                sender.thread.join(patience / len(self._senders))


class _Sender:
    """One URL."""

    def __init__(self, hook: Webhook, note: Callable[[str], None]) -> None:
        self.hook = hook
        self._note = note
        self._key = secret(hook.secret_file, "secret").encode() if hook.secret_file is not None else None
        self._parts = urlsplit(hook.url)
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._lost = 0
        self.thread = threading.Thread(target=self._run, name="spanrec-webhook", daemon=True)

    def put(self, body: bytes) -> None:
        with self._changed:
            if len(self._waiting) >= BACKLOG:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(body)
            self._changed.notify()

    def end(self) -> None:
        self._ending.set()
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ending.is_set():
                    self._changed.wait()
                if not self._waiting:
                    return
                body = self._waiting.popleft()
                lost, self._lost = self._lost, 0
            if lost:
                self._note(f"{self._where}: {lost} events were given up, as too many waited")
            why = self._deliver(body)
            if why:
                self._note(f"{self._where}: an event was not delivered: {why}")

    @property
    def _where(self) -> str:
        """The URL without its query, in which some carry a key."""
        return f"{self._parts.scheme}://{self._parts.netloc}{self._parts.path}"

    def _deliver(self, body: bytes) -> str:
        """Send one event; why it could not be done, empty where it was."""
        delivery, wait, why = str(uuid4()), FIRST_WAIT, ""
        for number in range(TRIES):
            if number and self._ending.wait(wait):
                return why
            wait = min(2 * wait, LONGEST_WAIT) if number else wait
            try:
                status = self._send(body, delivery)
            except (OSError, http.client.HTTPException) as error:
                why = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
                continue
            if 200 <= status < 300:
                return ""
            why = f"it answers {status}"
            if status not in _AGAIN:
                return why
        return why

    def _send(self, body: bytes, delivery: str) -> int:
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection
        if self._tls is not None:
            connection = http.client.HTTPSConnection(host, port, timeout=self.hook.timeout, context=self._tls)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self.hook.timeout)
        at = str(int(time()))
        headers = {"Content-Type": "application/json", "X-Spanrec-Delivery": delivery, "X-Spanrec-Time": at}
        if self._key is not None:
            headers["X-Spanrec-Signature"] = f"sha256={signature(self._key, at, body)}"
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        try:
            connection.request("POST", target, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


def signature(key: bytes, at: str, body: bytes) -> str:
    """What proves to who knows the key that an event came from here, and when."""
    return hmac.new(key, at.encode() + b"." + body, sha256).hexdigest()
