"""The token that opens the status server to who knows it.

In: the file that holds it. Out: the token. Never shows it.
"""

import stat
from pathlib import Path

from recorder.status import StatusError

SHORTEST = 16
"""Characters of a token."""


def read_token(path: Path) -> str:
    """The token that a file holds. Raises StatusError where it has none, or others can read it."""
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no ASCII text"
        raise StatusError(f"{path}: cannot read the token: {reason}") from error
    if mode & stat.S_IRWXO:
        raise StatusError(f"{path}: every user can read the token; chmod o= {path}")
    if len(token) < SHORTEST or not token.isprintable():
        raise StatusError(f"{path}: a token is a line of at least {SHORTEST} characters")
    return token
