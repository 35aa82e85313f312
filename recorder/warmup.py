"""Where compiled kernels are kept, and whether they are compiled already.

In: the kernels' sources. Out: a cache directory of their own for every state of the sources, for numba's cache does not
notice that a kernel's callee in another file has changed; and an answer to "will this run compile?", from a mark that
a complete run leaves there. Call `choose_kernel_cache` before anything imports numba, `load_kernels_directly` before
the first kernel runs.
"""

import os
import shutil
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from platform import machine, node, python_version
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("capture", "decoders", "recorder")
_VARIABLE = "NUMBA_CACHE_DIR"
_MARK = "complete"
_KEPT = 3
"""Caches of earlier states of the sources that are left where they are."""


def choose_kernel_cache() -> None:
    """Have numba keep this version's kernels in a directory of their own, unless the user has chosen one."""
    # Nothing here solves linear systems: threads that wait for them only take time from the others.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if os.environ.get(_VARIABLE):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spanrec"
    chosen = home / f"kernels-{_fingerprint()}"
    try:
        if not chosen.is_dir():
            chosen.mkdir(parents=True, exist_ok=True)
            older = sorted(home.glob("kernels-*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in older[_KEPT + 1 :]:
                shutil.rmtree(path, ignore_errors=True)
    except OSError:
        return  # numba then finds a place of its own, or compiles every time
    os.environ[_VARIABLE] = str(chosen)


def load_kernels_directly() -> None:
    """Have numba load compiled kernels without making its compiler ready first, which takes longer than all of them.

    A kernel that is not in the cache is compiled as ever: the compiler makes itself ready when it is called.
    """
    from numba.core import caching
    from numba.core.runtime import rtsys

    def load_overload(self: Any, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # what kernels count references with
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    if hasattr(caching.Cache, "_guard_against_spurious_io_errors") and hasattr(caching.Cache, "_load_overload"):
        caching.Cache.load_overload = load_overload


def type_operators_once() -> None:
    """Have numba's compiler remember what type an operator or a function gives for numbers of which types.

    It asks every rule it knows anew wherever an operator stands in a kernel, for a tenth of the time of a first run.
    """
    from numba.core import types

    operator: Any = types.Function
    ask = getattr(operator, "get_call_type", None)
    if ask is None:
        return
    known: dict[tuple[Any, Any, tuple[Any, ...]], Any] = {}

    def get_call_type(self: Any, context: Any, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        if kws or not all(isinstance(kind, types.Number | types.Boolean) for kind in args):
            return ask(self, context, args, kws)
        key = (self, context, args)
        if key not in known:
            known[key] = ask(self, context, args, kws)
        return known[key]

    operator.get_call_type = get_call_type


def kernels_are_cached() -> bool:
    """Whether a run with these very kernels has been completed here."""
    mark = _mark()
    return mark is not None and mark.exists()


def note_kernels_cached() -> None:
    """Leave the mark."""
    mark = _mark()
    if mark is None:
        return
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError:
        return


def _mark() -> Path | None:
    """Where the mark stands; None where numba's cache is not ours to know."""
    directory = os.environ.get(_VARIABLE)
    return Path(directory) / f"{_MARK}-{_fingerprint()}" if directory else None


def _fingerprint(root: Path = ROOT) -> str:
    """Changes with the kernels below `root`, the compiler, the interpreter and the machine."""
    digest = sha256(f"{python_version()} {machine()} {node()} {version('numba')} {root}".encode())
    for package in PACKAGES:
        for source in sorted((root / package).rglob("_*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
