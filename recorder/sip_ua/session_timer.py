"""Session timers (RFC 4028): which interval two sides agree on, and who refreshes.

In: header fields of both sides. Out: intervals in s and deadlines. Pure.
"""

from typing import NamedTuple

from decoders.sip import SipMessage
from decoders.sip_headers import parse_params

MIN_SE = 90
"""Shortest interval that anyone may ask for (section 5)."""
_LONGEST = 7 * 24 * 3600
_SHORTEST = 10
"""s; a peer that answers less than it may is refreshed for as often as that."""


class SessionTimer(NamedTuple):
    """What was agreed."""

    interval: int
    """s from one refresh to the end of the session where no other comes."""
    ours: bool
    """Whether we refresh."""

    @property
    def refresh_after(self) -> float:
        """s after a refresh when the next is sent (section 10)."""
        return self.interval / 2

    @property
    def end_after(self) -> float:
        """s after a refresh when the session is given up (section 10)."""
        return self.interval - min(32.0, self.interval / 3)

    def header(self, *, request: bool) -> str:
        """Session-Expires of a message of ours: `uac` is who sends the request that it belongs to."""
        return f"{self.interval};refresher={'uac' if self.ours is request else 'uas'}"


def session_expires(message: SipMessage) -> tuple[int, str] | None:
    """Interval and refresher (`uac`, `uas` or empty) of a Session-Expires; None where it is absent or unsound."""
    head, _, tail = (message.get("session-expires") or "").partition(";")
    interval = _seconds(head)
    refresher = (parse_params(tail).get("refresher") or "").lower()
    return (interval, refresher if refresher in ("uac", "uas") else "") if interval else None


def min_se(message: SipMessage) -> int:
    """Shortest interval that a message's author accepts."""
    return max(MIN_SE, _seconds((message.get("min-se") or "").partition(";")[0]) or 0)


def supports_timer(message: SipMessage) -> bool:
    """Whether a message's author knows session timers."""
    return any(tag.lower() == "timer" for tag in (*message.getlist("supported"), *message.getlist("require")))


def too_small(request: SipMessage, least: int) -> bool:
    """Whether a request must be answered 422 (section 9)."""
    asked = session_expires(request)
    return asked is not None and asked[0] < least and supports_timer(request)


def agree_as_server(request: SipMessage, wanted: int | None) -> SessionTimer | None:
    """What our 2xx to a request says (section 9); None: no session timer. Where the choice is ours the peer refreshes:
    what it sends shows that it is alive."""
    asked = session_expires(request)
    known = supports_timer(request)
    if asked is None:
        return SessionTimer(max(wanted, min_se(request)), ours=False) if known and wanted else None
    interval, refresher = asked
    if wanted:
        interval = max(min(interval, wanted), min_se(request), MIN_SE)
    # A peer without the extension cannot refresh: a proxy put the header field in.
    return SessionTimer(interval, ours=refresher == "uas" or not known)


def agree_as_client(response: SipMessage) -> SessionTimer | None:
    """What the 2xx to a request of ours says (section 7.2); without a refresher it is us."""
    answered = session_expires(response)
    return SessionTimer(max(answered[0], _SHORTEST), ours=answered[1] != "uas") if answered else None


def _seconds(text: str) -> int | None:
    text = text.strip()
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    return min(int(text), _LONGEST)
