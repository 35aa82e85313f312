"""Secrets, such as the token that opens the status server to who knows it.

In: the file that holds one. Out: the secret. Never shows it.
"""

import stat
from pathlib import Path

from recorder.status import StatusError

SHORTEST = 16
"""Characters of a token."""


def read_token(path: Path) -> str:
    """The token that a file holds. Raises StatusError where it has none, or others can read it."""
    return read_secret(path, "token", SHORTEST)


def read_secret(path: Path, what: str, shortest: int = 1) -> str:
    """The one line that a file holds, `what` it is called. Raises StatusError likewise."""
    try:
        mode = path.stat().st_mode
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no ASCII text"
        raise StatusError(f"{path}: cannot read the {what}: {reason}") from error
    if mode & stat.S_IRWXO:
        raise StatusError(f"{path}: every user can read the {what}; chmod o= {path}")
    if len(secret) < shortest or not secret.isprintable():
        raise StatusError(f"{path}: a {what} is a line of at least {shortest} characters")
    return secret
