"""Tags of recordings: what one may be called. In: text. Out: the same, checked. They go into file names nowhere."""

import re

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


def tag(text: object) -> str:
    """A tag as it may be. Raises ValueError."""
    if not isinstance(text, str) or not _TAG.fullmatch(text):
        raise ValueError(f"{text!r} is no tag; write up to 32 letters, digits and ._- and begin with a letter or digit")
    return text
