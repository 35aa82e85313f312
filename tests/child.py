"""Children for what cannot be undone in the process that tests it: dropped privileges, a sandbox.

The child is a Python that any user may read, so that it still finds its library when it has become one.
"""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
USER = "nobody"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change users")


def run(script: str, *, seconds: float = 60, **environment: str) -> Any:
    """What `script` gives to `tell`. It finds the project's packages, `tell`, json, os, socket and threading."""
    opening = "import json, os, socket, threading\ntell = lambda value: print(json.dumps(value, default=str))\n"
    variables = {**os.environ, "PYTHONPATH": path_of_packages(), **environment}
    command = [interpreter(), "-c", opening + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=variables, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@cache
def interpreter() -> str:
    for candidate in (sys.executable, "/usr/bin/python3"):
        if os.geteuid() != 0 or _works_for_others(candidate):
            return candidate
    pytest.skip(f"no Python {sys.version_info.major}.{sys.version_info.minor} that user {USER} can read")


def _works_for_others(candidate: str) -> bool:
    ask = f"import sys, os; os.setuid(65534); import numpy; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    command = [candidate, "-c", ask]
    variables = {**os.environ, "PYTHONPATH": path_of_packages()}
    try:
        return subprocess.run(command, env=variables, capture_output=True, timeout=60, check=False).returncode == 0
    except OSError:
        return False


def path_of_packages() -> str:
    import numpy

    return os.pathsep.join((str(ROOT), str(Path(numpy.__file__).parents[1])))
