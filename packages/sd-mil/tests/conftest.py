"""Makes ``mil_graphs`` importable beside the tests, and finds the converted reference packages."""

import contextlib
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("mil_text")

sys.path.insert(0, str(Path(__file__).parent))

with contextlib.suppress(ImportError):  # before a test module imports openvino, which would not be silent
    import sd_mil.engines.openvino.library  # noqa: F401

_REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "reference-packages"


@pytest.fixture(scope="session")
def reference_packages() -> Path:
    if not _REFERENCE.is_dir():
        pytest.skip("the reference packages are not on this machine")
    return _REFERENCE
