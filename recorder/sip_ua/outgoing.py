"""How a session is begun: targets in order, challenges, intervals, redirections.

In: a `NewSession`. Out: a session, or why there is none. A target that is silent, cannot be reached or answers 503
gives way to the next (RFC 3263, section 4.3); Contacts of a 3xx follow (RFC 3261, section 8.1.3.4), at most
MOST_REDIRECTIONS and none twice. None leads from TLS to a way without: what is said may be for nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from decoders.sip import SipMessage
from decoders.sip_address import NameAddress, parse_uri
from recorder.sip_ua.api import NewSession, RefusedError, UnreachableError
from recorder.sip_ua.core import Core
from recorder.sip_ua.invite import Attempt, AttemptOutcome, Plan
from recorder.sip_ua.layer import Hop
from recorder.sip_ua.message import Request, with_tag
from recorder.sip_ua.session import DialogSession
from recorder.sip_ua.session_timer import min_se
from recorder.sip_ua.stack import Authorize
from recorder.sip_ua.wire import Target

MOST_REDIRECTIONS = 5
_MOST_TRIES = 5
"""INVITEs to one target: challenges of several proxies, and one 422."""

Begun = tuple[DialogSession, SipMessage]


@dataclass(slots=True)
class Beginning:
    """One session that is being begun."""

    core: Core
    new: NewSession
    locate: Callable[[str], Awaitable[Sequence[Target]]]
    authorize: Authorize | None
    now: Callable[[], float]
    pump: Callable[[], None]
    date: Callable[[], str]
    wrap: Callable[[DialogSession, SipMessage], None]
    """Told of the session in the very moment that it begins: the peer's next request may be here already."""
    running: set[Attempt]
    """Where the attempt in progress is entered."""
    call_id: str = ""
    tag: str = ""
    cseq: int = 0
    interval: int | None = None
    least: int = 0

    async def run(self) -> Begun:
        """Begin it. Raises RefusedError or UnreachableError."""
        self.call_id = f"{self.core.random.getrandbits(128):032x}"
        self.tag = self.core.new_tag()
        self.interval = self.new.session_expires
        uris = deque([_request_uri(self.new.uri)])
        seen = set(uris)
        refused: RefusedError | None = None
        silent: list[str] = []
        while uris:
            uri = uris.popleft()
            targets = await self.locate(self.new.via or uri)
            if not targets:
                silent.append(f"{uri}: no address found")
            for target in targets:
                outcome = await self._at_target(uri, target)
                if isinstance(outcome, tuple):
                    return outcome
                if isinstance(outcome, UnreachableError):
                    silent.append(f"{target.endpoint}/{target.transport}: {outcome}")
                    continue
                refused = outcome
                if outcome.status == 503 and outcome.response is not None:
                    continue
                if not 300 <= outcome.status < 400 or outcome.response is None:
                    raise outcome
                listed = _redirections(outcome.response)
                allowed = [each for each in listed if self.new.via or _secure(each) or not _secure(self.new.uri)]
                if listed and not allowed:
                    refused = RefusedError(outcome.status, "a redirection away from TLS", outcome.response)
                fresh = [each for each in allowed if each not in seen][: MOST_REDIRECTIONS + 1 - len(seen)]
                seen.update(fresh)
                uris.extendleft(reversed(fresh))
                break
        if refused is not None:
            raise refused
        raise UnreachableError("; ".join(silent))

    async def _at_target(self, uri: str, target: Target) -> AttemptOutcome:
        """One target, with what a challenge or a 422 demands."""
        request = self._request(uri, target)
        outcome: AttemptOutcome = UnreachableError("never tried")
        for _ in range(_MOST_TRIES):
            self.cseq += 1
            outcome = await self._attempt(replace(request, cseq=self.cseq), target)
            if not isinstance(outcome, RefusedError) or outcome.response is None:
                return outcome
            again = None
            if outcome.status in (401, 407) and self.authorize is not None:
                again = self.authorize(outcome.response, request)
            elif outcome.status == 422 and self.interval is not None and min_se(outcome.response) > self.interval:
                self.interval = self.least = min_se(outcome.response)
                again = self._request(uri, target)
            if again is None:
                return outcome
            request = again
        return outcome

    async def _attempt(self, request: Request, target: Target) -> AttemptOutcome:
        future: asyncio.Future[AttemptOutcome] = asyncio.get_running_loop().create_future()

        def done(outcome: AttemptOutcome, now: float) -> None:
            if isinstance(outcome, tuple):
                self.wrap(*outcome)
            if not future.done():
                future.set_result(outcome)

        contact = next(value for name, value in request.headers if name == "Contact")
        new = self.new
        plan = Plan(contact, new.answer, self.authorize, new.timeout, new.answer_timeout)
        attempt = Attempt(self.core, request, Hop(target), plan, done, self.now())
        self.running.add(attempt)
        self.pump()
        try:
            return await future
        except asyncio.CancelledError:
            attempt.cancel(self.now())
            if future.done() and not future.cancelled():
                outcome = future.result()
                if isinstance(outcome, tuple):
                    outcome[0].bye(None, (), lambda: None, self.now())
            self.pump()
            raise
        finally:
            self.running.discard(attempt)

    def _request(self, uri: str, target: Target) -> Request:
        new, config = self.new, self.core.config
        secure = parse_uri(uri).scheme == "sips"
        contact = self.core.contact(target, None, new.contact_params, secure=secure)
        local = self.core.sender.local(target)
        identity = new.from_ or config.identity or f"<sip:{config.contact_user}@{local[0] if local else 'invalid'}>"
        headers = [
            ("Contact", contact),
            ("Allow", config.allow),
            ("Supported", config.supported),
            ("User-Agent", config.product),
            ("Date", self.date()),
        ]
        if self.interval is not None:
            headers.append(("Session-Expires", str(self.interval)))
            if self.least:
                headers.append(("Min-SE", str(self.least)))
        return Request(
            "INVITE",
            uri,
            with_tag(identity if "<" in identity else f"<{identity}>", self.tag),
            new.to or f"<{new.uri}>",
            self.call_id,
            self.cseq,
            routes=(f"<{new.via}>",) if new.via and "lr" in parse_uri(new.via).params else (),
            headers=(*headers, *new.headers),
            body=new.body,
        )


def _redirections(response: SipMessage) -> list[str]:
    """URIs of a 3xx, by q, then in order."""
    contacts = [contact for contact in response.contacts if parse_uri(contact.uri).scheme in ("sip", "sips")]
    return [_request_uri(contact.uri) for contact in sorted(contacts, key=_quality, reverse=True)]


def _secure(uri: str) -> bool:
    """Whether TLS leads to a URI, by its own word."""
    parsed = parse_uri(uri)
    return parsed.scheme == "sips" or (parsed.params.get("transport") or "").lower() == "tls"


def _quality(contact: NameAddress) -> float:
    try:
        return float(contact.params.get("q") or 1.0)
    except ValueError:
        return 0.0


def _request_uri(uri: str) -> str:
    """Without header fields, which no Request-URI has (RFC 3261, section 19.1.1)."""
    return uri[: uri.find("?", uri.find("@") + 1)] if "?" in uri[uri.find("@") + 1 :] else uri
