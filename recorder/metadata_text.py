"""Text as an XML document can carry it: what was heard on a wire, made safe, with what was changed left visible.

In: strings from untrusted messages. Out: strings that XML 1.0 and xs:anyURI allow. Never raises on what a wire brought.
"""

import re
from urllib.parse import quote

ANONYMOUS = "sip:anonymous@anonymous.invalid"
"""Address of record of a participant of whom nothing was heard (RFC 3261, section 8.1.1.3; RFC 3323)."""

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BARE_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_UNDECODABLE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_USUAL = re.compile(r"(?:sips?|tel):[A-Za-z0-9+._~:;=@-]+").fullmatch
"""Nearly all addresses: nothing in them needs care."""
_URI_CHARACTERS = "%:/?@!$&'()*+,;="
"""What RFC 3986 lets stand besides letters, digits and -._~ outside of an authority; a # would begin a fragment."""


def xml_text(text: str) -> str:
    """`text` with every character that XML 1.0 forbids shown as U+FFFD."""
    if text.isascii() and text.isprintable():  # nearly all of it
        return text
    return _NOT_XML.sub("\ufffd", text)


def aor_uri(heard: str) -> str:
    """A valid xs:anyURI for an address of record as heard.

    What a URI cannot hold is percent-encoded: blanks, letters beyond ASCII, the # of service codes, the brackets of an
    IPv6 host (which XML Schema allows after // only). A number or host without a scheme gets `sip:`.
    """
    if _USUAL(heard):
        return heard
    text = heard.strip().removeprefix("<").removesuffix(">").strip()
    if not text:
        return ANONYMOUS
    if not _SCHEME.match(text):
        text = f"sip:{text}"
    text = _BARE_PERCENT.sub("%25", _UNDECODABLE.sub("\ufffd", text))
    scheme, _, rest = quote(text, safe=_URI_CHARACTERS, errors="surrogateescape").partition(":")
    # No address of record is hierarchical: after // XML Schema would check an authority that is none.
    return f"{scheme}:%2F%2F{rest[2:]}" if rest.startswith("//") else f"{scheme}:{rest}"
