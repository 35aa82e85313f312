"""Messages to the service manager, as sd_notify(3) has them.

In: the environment (NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID). Out: datagrams to systemd; none where spanrec is not
run by it, so that callers need not ask. Never waits, and never fails the service: a manager that cannot be reached
will miss the watchdog and act on that.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_LONGEST_STATUS = 200


class ServiceManager:
    """Who started this service, to be told how it is. Safe to call from any thread."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the manager's address out of `environment`, so that no child speaks in this process's name."""
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address[:1] in ("/", "\0"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self.watchdog_interval = _watchdog(environment)
        """Seconds between two beats that the manager has to get; None where it watches not."""
        self._last_beat = -1e9
        self._reloading = False
        self._status = ""

    @property
    def present(self) -> bool:
        """Whether there is a manager to tell."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The service is up; `status` is a sentence for `systemctl status`."""
        self._send(f"READY=1\n{self._status_line(status)}")

    def status(self, status: str) -> None:
        """How things are, in a sentence. The same sentence again is not sent."""
        if status != self._status:
            self._send(self._status_line(status))

    def reloading(self) -> None:
        """Settings are being read anew. The manager waits for `reloaded`, for ever if need be."""
        self._reloading = True
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self, status: str) -> None:
        """They have been read, whether they could be used or not. Nothing is sent where `reloading` was not."""
        if self._reloading:
            self._reloading = False
            self.ready(status)

    def stopping(self, status: str) -> None:
        """The service finishes what is in flight."""
        self._send(f"STOPPING=1\n{self._status_line(status)}")

    def more_time(self, seconds: float) -> None:
        """Starting, reloading or stopping takes longer: another `seconds` from now before it counts as hung."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def beat(self) -> None:
        """The service is alive. Call it as often as you like: it is sent twice in a watchdog interval."""
        if self.watchdog_interval is None:
            return
        now = time.monotonic()
        if now - self._last_beat >= self.watchdog_interval / 2:
            self._last_beat = now
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Let go of the socket. What is said afterwards goes nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _status_line(self, status: str) -> str:
        self._status = status
        # A line end in a status would be the next assignment.
        return "STATUS=" + " ".join(status.split())[:_LONGEST_STATUS]

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.sendto(message.encode(errors="replace"), self._address)


def _watchdog(environment: MutableMapping[str, str]) -> float | None:
    microseconds = environment.pop("WATCHDOG_USEC", "")
    process = environment.pop("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if process and process != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
