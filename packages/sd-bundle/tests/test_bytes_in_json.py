"""Bytes are base64 in JSON."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_bundle import ManifestError, decode, encode


@dataclass(frozen=True)
class Attachment:
    content: bytes


@given(st.binary(max_size=50))
def test_base64_in_and_out(content: bytes) -> None:
    encoded = encode(Attachment(content))
    assert encoded == {"content": base64.b64encode(content).decode()}
    assert decode(Attachment, encoded) == Attachment(content)


@pytest.mark.parametrize("text", ["a", "YQ", "YQ==\n", "Y*Q=", "é", 1, None])
def test_other_text_is_refused(text: object) -> None:
    with pytest.raises(ManifestError, match="content"):
        decode(Attachment, {"content": text})
