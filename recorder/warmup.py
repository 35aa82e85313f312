"""Whether the kernels are compiled already: the first run after an installation compiles them, and should say so.

In: the kernels' sources. Out: an answer from a mark that a complete run leaves where numba keeps its cache. The mark
is only for the user's information: without it kernels work all the same.
"""

import os
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import machine, node, python_version


def kernels_are_cached() -> bool:
    """Whether a run with these very kernels has been completed here."""
    return any(place.exists() for place in _marks())


def note_kernels_cached() -> None:
    """Leave the mark, in the first place that can be written."""
    for place in _marks():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
            return
        except OSError:
            continue


def _marks() -> list[Path]:
    """Where the mark may stand: numba's own directory if it is set, beside the kernels, the user's cache."""
    name = f"kernels-{_fingerprint()}"
    package = Path(__file__).resolve().parent
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen) / name]
    return [package / "__pycache__" / name, Path.home() / ".cache" / "spanrec" / name]


def _fingerprint() -> str:
    """Changes with the kernels, the compiler, the interpreter and the machine."""
    root = Path(__file__).resolve().parent.parent
    digest = sha256(f"{python_version()} {machine()} {node()} {version('numba')} {root}".encode())
    for package in ("capture", "decoders"):
        for source in sorted((root / package).glob("_*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
