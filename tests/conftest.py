"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

from recorder.warmup import choose_kernel_cache

# Before any test imports a kernel: a cache of these very sources, shared by all processes of the run.
choose_kernel_cache()


@pytest.fixture(scope="session")
def captures() -> Path:
    """Directory of third-party captures, which are never part of the project."""
    default = Path(__file__).resolve().parents[2] / "shared" / "captures"
    path = Path(os.environ.get("SPANREC_CAPTURES", default))
    if not path.is_dir():
        pytest.skip("third-party captures are not here (set SPANREC_CAPTURES to their directory)")
    return path
