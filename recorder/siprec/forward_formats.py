"""Payload formats on their way from a call to a recording server: which is which, and under which number it goes out.

In: formats as the call announced them and as the server accepted them. Out: numbers of payload types, or none: a format
is never sent under the number of another. Keeps nothing.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache

from decoders.sdp import STATIC_FORMATS, PayloadFormat
from recorder.siprec._forward_columns import NOT_ACCEPTED, UNANSWERED, UNKNOWN

_STRICT = frozenset({"amr", "amr-wb", "amr-wb+", "ilbc", "g7221", "mp4a-latm", "mpeg4-generic", "h264", "vp9"})
"""Encodings whose octets mean something else by other parameters."""
_UNASKED = (0, 3, 8, 9, 13, 18)
"""Static payload types of speech that telephones send though nobody announced them."""


def same_encoding(one: PayloadFormat, other: PayloadFormat) -> bool:
    """Whether two formats agree in all that their rtpmaps say; names of encodings have no case."""
    return (one.encoding.lower(), one.clock_rate, one.channels) == (
        other.encoding.lower(),
        other.clock_rate,
        other.channels,
    )


@lru_cache(maxsize=1024)
def parameters(form: PayloadFormat) -> frozenset[str]:
    """The format parameters, whatever their order, case and blanks."""
    return frozenset(part.strip().lower() for part in form.fmtp.split(";") if part.strip())


def same_format(one: PayloadFormat, other: PayloadFormat) -> bool:
    """Whether packets of one may be sent as the other: parameters count where they change the octets."""
    if not same_encoding(one, other):
        return False
    return one.encoding.lower() not in _STRICT or parameters(one) == parameters(other)


def outgoing_type(form: PayloadFormat, accepted: Mapping[PayloadFormat, int]) -> int | None:
    """Payload type under which a format goes out; None where the server does not take it."""
    found = accepted.get(form)
    if found is None:
        candidates = [each for each in accepted if same_format(form, each)]
        candidates.sort(key=lambda each: (parameters(each) != parameters(form), each.payload_type != form.payload_type))
        found = accepted[candidates[0]] if candidates else None
    return found if found is not None and 0 <= found <= 127 else None


def known_formats(formats: Mapping[int, PayloadFormat]) -> dict[int, PayloadFormat]:
    """What a claim announced, and static formats of speech under numbers that it does not use (RFC 3551)."""
    return {**{kind: STATIC_FORMATS[kind] for kind in _UNASKED}, **formats}


class SourceFormats:
    """The formats that one source has shown, numbered."""

    def __init__(self) -> None:
        self.formats: list[PayloadFormat] = []
        self._numbers: dict[tuple[str, int, int, frozenset[str]], int] = {}
        self._inner: list[Mapping[int, PayloadFormat]] = []
        """Of each: what numbers within a redundant packet (RFC 2198) mean."""
        self.announced: set[int] = set()
        """Numbers of those that are not merely usual."""

    def numbers(self, formats: Mapping[int, PayloadFormat]) -> dict[int, int]:
        """Payload type -> number of its format, for a flow; types that are missing are not known."""
        found = {}
        # What was announced comes first, as there is room for so many only.
        for kind, form in {**formats, **known_formats(formats)}.items():
            if 0 <= kind <= 127:
                number = self._number(form, formats)
                if number is not None:
                    found[kind] = number
                    if kind in formats:
                        self.announced.add(number)
        return found

    def among(self, offered: AbstractSet[PayloadFormat] | None) -> frozenset[int]:
        """Numbers of announced formats that are among those offered to a server; all of them where that is None."""
        if offered is None:
            return frozenset(self.announced)
        keys = {_key(form) for form in offered}
        return frozenset(number for number in self.announced if _key(self.formats[number]) in keys)

    def types(self, accepted: Mapping[PayloadFormat, int], asked: AbstractSet[int]) -> list[int]:
        """Payload type of each number towards a server, and of UNKNOWN. The server was asked about numbers in `asked`;
        others that were announced since, and that it does not take, it may yet be asked about.
        """
        out = [NOT_ACCEPTED] * (UNKNOWN + 1)
        for number in self.announced - asked:
            out[number] = UNANSWERED
        for number, (form, inner) in enumerate(zip(self.formats, self._inner, strict=True)):
            kind = outgoing_type(form, accepted)
            if kind is not None and (form.encoding.lower() != "red" or _unchanged(inner, accepted)):
                out[number] = kind
        return out

    @property
    def rates(self) -> Sequence[int]:
        """Clock rate of each number."""
        return [form.clock_rate for form in self.formats]

    def _number(self, form: PayloadFormat, inner: Mapping[int, PayloadFormat]) -> int | None:
        key = _key(form)
        number = self._numbers.get(key)
        if number is not None:
            self._inner[number] = inner
            return number
        if len(self.formats) >= UNKNOWN:
            return None
        self.formats.append(form)
        self._inner.append(inner)
        self._numbers[key] = len(self.formats) - 1
        return len(self.formats) - 1


def _key(form: PayloadFormat) -> tuple[str, int, int, frozenset[str]]:
    """All that tells a format from others."""
    return form.encoding.lower(), form.clock_rate, form.channels, parameters(form)


def _unchanged(inner: Mapping[int, PayloadFormat], accepted: Mapping[PayloadFormat, int]) -> bool:
    """Whether every accepted format keeps its number, so that the numbers within redundant packets stay true."""
    outgoing = {kind: outgoing_type(form, accepted) for kind, form in inner.items()}
    return all(out is None or out == kind for kind, out in outgoing.items())
