"""Makes ``diffusers_oracle`` importable, and diffusers' classes quicker to make."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _signatures_read_once() -> Iterator[None]:
    """diffusers inspects the arguments of some fifteen classes for each scheduler that it makes."""
    try:
        from diffusers.configuration_utils import ConfigMixin
    except ImportError:  # where this package is alone
        yield
        return
    known = cache(ConfigMixin._get_init_keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigMixin, "_get_init_keys", staticmethod(lambda kind: set(known(kind))))
        yield
