"""How a user agent presents itself, and its limits."""

from dataclasses import dataclass, field

from recorder.sip_ua.message import ALLOW, SUPPORTED
from recorder.sip_ua.session_timer import MIN_SE
from recorder.sip_ua.timers import Intervals


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What is the same for all sessions of an agent. Times in s."""

    product: str = "spanrec"
    """User-Agent and Server."""
    identity: str = ""
    """From of what we begin, a name-addr; empty: `contact_user` at the address that the request leaves from."""
    contact_user: str = "spanrec"
    supported: str = SUPPORTED
    """Option tags of Supported, which may be required of us."""
    allow: str = ALLOW
    accept: str = "application/sdp, application/rs-metadata+xml, application/rs-metadata, multipart/mixed"
    intervals: Intervals = field(default_factory=Intervals)
    session_expires: int | None = 1800
    """Interval of session timers where we accept (RFC 4028), and twice that of the OPTIONS that tell whether a peer
    without session timers is alive. None: neither."""
    min_se: int = MIN_SE
    answer_timeout: float = 32.0
    """How long a re-INVITE waits for its final response."""
    max_sessions: int = 5000
    max_transactions: int = 20000
    """Server transactions; beyond it, and beyond `max_sessions`, new requests are answered 503."""
    max_requests: int = 64
    """Server transactions of one session; beyond it its requests are answered 503, and nobody else's."""
    retry_after: int = 10
    """Retry-After of that 503."""

    def understands(self, option: str) -> bool:
        """Whether an option tag may stand in Require."""
        return option.strip().lower() in {tag.strip().lower() for tag in self.supported.split(",")}
