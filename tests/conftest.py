"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from recorder.warmup import choose_kernel_cache

# Before any test imports a kernel: a cache of these very sources, shared by all processes of the run.
choose_kernel_cache()


# How long an example takes says nothing of whether it is right: machines are shared, and kernels compile.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(scope="session")
def captures() -> Path:
    """Directory of third-party captures, which are never part of the project."""
    default = Path(__file__).resolve().parents[2] / "shared" / "captures"
    path = Path(os.environ.get("SPANREC_CAPTURES", default))
    if not path.is_dir():
        pytest.skip("third-party captures are not here (set SPANREC_CAPTURES to their directory)")
    return path
