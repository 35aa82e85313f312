"""What our SRC does with a call: whether it is recorded, where, and what is said of it.

In: nothing. Out: values that settings and rules make, and that sessions keep. `decide` of `src_sessions.SrcSessions`
gives one `SrcDecision` for each picture of a call.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from recorder.model import Side
from recorder.sip_ua.api import Credentials, Header


class Protection(StrEnum):
    """Which profile media have towards a server."""

    AVP = "avp"
    SAVP = "savp"
    """RTP/SAVP with SDES keys of ours (RFC 4568)."""
    SAME = "same-as-call"
    """SAVP for a call that is itself encrypted, else AVP."""


class Choice(StrEnum):
    """Which server of a list a new session goes to; those that are down come last either way."""

    ORDER = "order"
    """The first of the list, the others where it fails."""
    WEIGHT = "weight"
    """By lot, in proportion to the weights; the others where it fails."""


class Insecure(StrEnum):
    """What to do where a call is encrypted and the way to the server is not (RFC 7866, section 12)."""

    REFUSE = "refuse"
    WARN = "warn"


class OnHold(StrEnum):
    """What becomes of the recording while the call is on hold; its metadata say so either way."""

    SEND = "send"
    """Streams stay as they are: what is heard (music) is recorded."""
    PAUSE = "pause"


class OnBye(StrEnum):
    """What to do where a server ends a session while its call goes on."""

    NEXT = "next"
    """Go on at the next server."""
    END = "end"


@dataclass(frozen=True, slots=True)
class Server:
    """A recording server."""

    uri: str
    """`sip:` or `sips:`, with whatever parameters it needs (`;transport=tls`)."""
    weight: int = 1
    """From 1."""
    protection: Protection = Protection.AVP
    keys_in_clear: bool = False
    """SDES keys may be sent without TLS, where they protect nothing from whoever reads the signalling."""
    credentials: Credentials | None = None
    via: str | None = None
    """SIP URI of an outbound proxy."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is said in place of what was heard. Empty: as heard."""

    caller_name: str = ""
    caller_aor: str = ""
    callee_name: str = ""
    callee_aor: str = ""
    group: UUID | None = None
    """`group_id`; None: that of the call's conversation."""
    group_extension: str = ""
    """XML elements that stand under `group`; `snapshot.why_no_extension` has found nothing wrong with them."""
    session_extension: str = ""
    """Likewise under `session`."""
    from_: str = ""
    """From of the INVITE, as a name-addr; empty: the agent's own."""
    to: str = ""
    """To likewise; empty: the server's URI."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One recording of a call, apart from others of the same call."""

    servers: tuple[Server, ...]
    """In order of preference."""
    name: str = ""
    """Tells instances of one call apart; persistent sessions are one for each name."""
    choice: Choice = Choice.ORDER
    final: re.Pattern[str] | None = None
    """Fits, as a whole, status codes after which no other server is tried; None: any failure goes to the next."""
    persistent: bool = False
    """Many calls in one session at each server; else a session of its own for each call."""
    overrides: Overrides = field(default_factory=Overrides)
    headers: Sequence[Header] = ()
    """Further ones in each INVITE."""
    media: tuple[str, ...] = ("audio",)
    """Kinds of media that are recorded."""
    media_host: str = ""
    """Address from which media go out; empty: the one that leads to the server."""
    agent: str = ""
    """Name of the user agent (its local sockets); empty: the usual one."""
    on_hold: OnHold = OnHold.SEND
    on_bye: OnBye = OnBye.NEXT
    insecure: Insecure = Insecure.REFUSE
    spool: bool = True
    """Keep the call here where no server can be had."""
    timeout: float = 5.0
    """s to wait for any response of a server before the next is tried."""
    answer_timeout: float = 32.0
    """s to wait for its final response."""
    session_expires: int | None = 1800
    """s between refreshes (RFC 4028); None: no session timer."""


@dataclass(frozen=True, slots=True)
class PauseTerms:
    """When nothing of a call is to be recorded for a while."""

    pause_digits: str = ""
    """DTMF code after which it pauses; empty: none does."""
    resume_digits: str = ""
    """DTMF code after which it goes on; empty: the other one again."""
    by: frozenset[Side] = frozenset(Side)
    """Whose keys count."""
    preference: bool = False
    """`a=recordpref:pause` and `off` of a participant pause too."""


@dataclass(frozen=True, slots=True)
class SrcDecision:
    """What to do with a call, by one picture of it.

    The first decision to record begins sessions; later ones only say whether they pause. A decision not to record
    leaves sessions alone that have begun: what an operator or a server asked for goes on.
    """

    record: bool
    instances: tuple[Instance, ...] = ()
    """With distinct names."""
    paused: bool = False
    """Nothing is to be recorded for now (card data; `a=recordpref:pause` where that is heeded)."""
    reason: str = ""
    """A phrase: the rule that says so."""
    pausing: PauseTerms = field(default_factory=PauseTerms)


NOT_RECORDED = SrcDecision(record=False)
