"""Digest authentication: answers to challenges, and challenges of our own (RFC 7616, RFC 8760; RFC 2617).

In: header fields, credentials. Out: header fields, and who a request is of. Secrets stay in here: nothing of them is in
any exception or text. The server's nonces carry their own time and proof, so that they need no memory; that none is
used twice does, and that memory is bounded.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from decoders.sip import SipMessage
from recorder.sip_ua.api import Credentials, Header, Peer, Reply
from recorder.sip_ua.message import Request

ALGORITHMS = ("SHA-512-256", "SHA-256", "MD5")
"""The better ones first."""
OFFERED = ("SHA-256", "MD5")
"""What our own challenges offer (RFC 8760, section 2.3)."""
LIFE = 120
"""s for which a nonce of ours is taken."""
MOST_COUNTS = 10_000
"""Nonces of which it is remembered how often they were used."""
_PAIR = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}


def digest(algorithm: str, text: str) -> str:
    """Hexadecimal digest by the base of an algorithm's name."""
    name = _HASHES[algorithm.upper().removesuffix("-SESS")]
    return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 or 407 asks for."""

    realm: str
    nonce: str
    algorithm: str
    """As written: it is said back so."""
    qop: str | None
    """auth, auth-int, or None (RFC 2069)."""
    opaque: str | None
    stale: bool
    proxy: bool

    @property
    def rank(self) -> int:
        """The lower, the better."""
        return ALGORITHMS.index(self.algorithm.upper().removesuffix("-SESS"))


def parse_pairs(text: str) -> dict[str, str]:
    """Parameters of a Digest header field, names in lower case, the first of each name."""
    found: dict[str, str] = {}
    for name, quoted, plain in _PAIR.findall(text[:8192]):
        found.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else plain)
    return found


def challenges(response: SipMessage) -> list[Challenge]:
    """What can be answered of a 401 or 407, best first."""
    found = []
    for name, proxy in (("www-authenticate", False), ("proxy-authenticate", True)):
        for value in response.headers.get(name, []):
            scheme, _, rest = value.strip().partition(" ")
            pairs = parse_pairs(rest)
            algorithm = pairs.get("algorithm", "MD5")
            offered = [each.strip().lower() for each in pairs.get("qop", "").split(",") if each.strip()]
            qop = next((each for each in ("auth", "auth-int") if each in offered), None)
            known = algorithm.upper().removesuffix("-SESS") in _HASHES
            if scheme.lower() != "digest" or not known or "nonce" not in pairs or (offered and qop is None):
                continue
            stale = pairs.get("stale", "").lower() == "true"
            realm = pairs.get("realm", "")
            found.append(Challenge(realm, pairs["nonce"], algorithm, qop, pairs.get("opaque"), stale, proxy))
    return sorted(found, key=lambda each: each.rank)


@dataclass(frozen=True, slots=True)
class Secret:
    """What a digest is made of."""

    user: str
    realm: str
    ha1: Callable[[str], str] = field(repr=False)
    """Digest of user, realm and password by the base of an algorithm."""


def response_value(
    algorithm: str,
    secret: Secret,
    method: str,
    uri: str,
    nonce: str,
    *,
    qop: str | None = None,
    count: str = "",
    cnonce: str = "",
    body: bytes = b"",
) -> str:
    """The `response` parameter (RFC 7616, section 3.4.1)."""
    first = secret.ha1(algorithm)
    if algorithm.upper().endswith("-SESS"):
        first = digest(algorithm, f"{first}:{nonce}:{cnonce}")
    second = f"{method}:{uri}"
    if qop == "auth-int":
        name = _HASHES[algorithm.upper().removesuffix("-SESS")]
        second += f":{hashlib.new(name, body, usedforsecurity=False).hexdigest()}"
    second = digest(algorithm, second)
    if qop is None:
        return digest(algorithm, f"{first}:{nonce}:{second}")
    return digest(algorithm, f"{first}:{nonce}:{count}:{cnonce}:{qop}:{second}")


def secret_of(credentials: Credentials, realm: str) -> Secret:
    """With the password at hand."""
    user, password = credentials.user, credentials.password
    return Secret(user, realm, lambda algorithm: digest(algorithm, f"{user}:{realm}:{password}"))


class Authorizer:
    """Answers challenges to the requests of one session, in order (`recorder.sip_ua.stack.Authorize`)."""

    def __init__(self, credentials: Credentials, cnonce: Callable[[], str] = lambda: secrets.token_hex(8)) -> None:
        self._credentials = credentials
        self._cnonce = cnonce
        self._counts: dict[tuple[str, str], int] = {}
        """Realm and nonce -> how often it was answered."""
        self._failed: set[tuple[str, str]] = set()

    def __call__(self, response: SipMessage, request: Request) -> Request | None:
        """`request` with credentials; None where its challenge cannot be answered, or was, to no avail."""
        answers: list[Header] = []
        for challenge in _one_a_realm(challenges(response)):
            wanted = self._credentials.realm
            if wanted is not None and wanted != challenge.realm:
                continue
            name = "Proxy-Authorization" if challenge.proxy else "Authorization"
            tried = any(
                each == name and f'realm="{_quoted(challenge.realm)}"' in value for each, value in request.headers
            )
            if tried and not challenge.stale:
                return None
            answers.append((name, self._answer(challenge, request)))
        if not answers:
            return None
        realms = [(name, value.partition("nonce=")[0]) for name, value in answers]
        kept = [(name, value) for name, value in request.headers if (name, value.partition("nonce=")[0]) not in realms]
        return replace(request, headers=(*kept, *answers))

    def _answer(self, challenge: Challenge, request: Request) -> str:
        key = (challenge.realm, challenge.nonce)
        self._counts[key] = self._counts.get(key, 0) + 1
        if len(self._counts) > 64:
            del self._counts[next(iter(self._counts))]
        count, cnonce = f"{self._counts[key]:08x}", self._cnonce()
        uri = request.uri
        value = response_value(
            challenge.algorithm,
            secret_of(self._credentials, challenge.realm),
            request.method,
            uri,
            challenge.nonce,
            qop=challenge.qop,
            count=count,
            cnonce=cnonce,
            body=request.body.data if request.body is not None else b"",
        )
        parts = [
            f'username="{_quoted(self._credentials.user)}"',
            f'realm="{_quoted(challenge.realm)}"',
            f'nonce="{_quoted(challenge.nonce)}"',
            f'uri="{_quoted(uri)}"',
            f'response="{value}"',
            f"algorithm={challenge.algorithm}",
        ]
        if challenge.qop is not None:
            parts += [f'cnonce="{cnonce}"', f"qop={challenge.qop}", f"nc={count}"]
        elif challenge.algorithm.upper().endswith("-SESS"):
            parts.append(f'cnonce="{cnonce}"')
        if challenge.opaque is not None:
            parts.append(f'opaque="{_quoted(challenge.opaque)}"')
        return "Digest " + ", ".join(parts)


def _one_a_realm(found: Sequence[Challenge]) -> list[Challenge]:
    """The best challenge of each realm (RFC 8760, section 2.4)."""
    best: dict[tuple[bool, str], Challenge] = {}
    for challenge in found:
        best.setdefault((challenge.proxy, challenge.realm), challenge)
    return list(best.values())


def _quoted(text: str) -> str:
    return re.sub(r"[\r\n\0]", "", text).replace("\\", "\\\\").replace('"', '\\"')


class _Verdict(Enum):
    RIGHT = 0
    STALE = 1
    WRONG = 2


class Challenger:
    """Asks who sends an INVITE (`recorder.sip_ua.agent.Admit`)."""

    def __init__(
        self,
        users: Callable[[str], str | None],
        clock: Callable[[], float],
        realm: str = "spanrec",
        *,
        secret: bytes | None = None,
        life: float = LIFE,
        algorithms: Sequence[str] = OFFERED,
    ) -> None:
        """`users` gives the password of a user, None for nobody; `clock` s; `algorithms` are offered in this order, and
        no others are taken: some clients look at the first challenge only, and know nothing but MD5."""
        self._users, self._clock, self._realm, self._life = users, clock, realm, life
        self._secret = secret or secrets.token_bytes(32)
        self._algorithms = tuple(algorithms)
        self._counts: OrderedDict[str, int] = OrderedDict()
        """Nonce -> the highest count that it was used with."""

    def __call__(self, message: SipMessage, peer: Peer) -> Reply | Peer:
        """The peer with its user, or the 401 that asks."""
        stale = False
        for value in message.headers.get("authorization", []):
            scheme, _, rest = value.strip().partition(" ")
            pairs = parse_pairs(rest)
            if scheme.lower() != "digest" or pairs.get("realm") != self._realm:
                continue
            verdict = self._judge(message, pairs)
            if verdict is _Verdict.RIGHT:
                return replace(peer, user=pairs.get("username", ""))
            stale = stale or verdict is _Verdict.STALE
        return Reply(401, headers=self._challenges(stale=stale))

    def _challenges(self, *, stale: bool) -> list[Header]:
        nonce = self._nonce(self._clock())
        more = ", stale=true" if stale else ""
        return [
            ("WWW-Authenticate", f'Digest realm="{self._realm}", nonce="{nonce}", qop="auth", algorithm={each}{more}')
            for each in self._algorithms
        ]

    def _nonce(self, now: float) -> str:
        lot = f"{int(now * 1000):x}.{secrets.token_hex(8)}"
        return f"{lot}.{self._proof(lot)}"

    def _proof(self, lot: str) -> str:
        return hmac.new(self._secret, lot.encode(), "sha256").hexdigest()[:32]

    def _judge(self, message: SipMessage, pairs: Mapping[str, str]) -> _Verdict:
        algorithm = pairs.get("algorithm", "MD5")
        nonce, user = pairs.get("nonce", ""), pairs.get("username", "")
        count, qop = pairs.get("nc", ""), pairs.get("qop")
        password = self._users(user)
        if algorithm.upper() not in self._algorithms or qop != "auth" or not re.fullmatch(r"[0-9a-fA-F]{8}", count):
            return _Verdict.WRONG
        # As long for a user that is not there as for a wrong password.
        secret = secret_of(Credentials(user, password if password is not None else secrets.token_hex(8)), self._realm)
        wanted = response_value(
            algorithm, secret, message.method or "", pairs.get("uri", ""), nonce, qop=qop, count=count,
            cnonce=pairs.get("cnonce", ""),
        )  # fmt: skip
        right = (
            hmac.compare_digest(wanted.encode(), pairs.get("response", "").lower().encode()) and password is not None
        )
        # The URI need not be the request's: a proxy on the way may have changed that one (RFC 3261, section 22.4).
        if not right:
            return _Verdict.WRONG
        return _Verdict.RIGHT if self._is_fresh(nonce, int(count, 16)) else _Verdict.STALE

    def _is_fresh(self, nonce: str, count: int) -> bool:
        lot, _, proof = nonce.rpartition(".")
        if not hmac.compare_digest(self._proof(lot).encode(), proof.encode()):
            return False
        made = int(lot.partition(".")[0], 16) / 1000
        if not 0 <= self._clock() - made <= self._life or count <= self._counts.get(nonce, 0):
            return False
        self._counts.pop(nonce, None)
        self._counts[nonce] = count
        if len(self._counts) > MOST_COUNTS:
            self._counts.popitem(last=False)
        return True
