import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sd_mil import PackageError
from sd_mil.format.encoding import varint
from sd_mil.format.wire import MAX_DEPTH, Message


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_numbers_survive(value):
    assert Message(varint(8) + varint(value)).signed(1) == value


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_packed_and_unpacked_integers_are_the_same(values):
    packed = Message(field(1, b"".join(map(varint, values))))
    unpacked = Message(b"".join(varint(8) + varint(value) for value in values))
    assert packed.integers(1).tolist() == unpacked.integers(1).tolist() == values


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_packed_and_unpacked_floats_are_the_same(values):
    raw = [np.float32(value).tobytes() for value in values]
    packed, unpacked = Message(field(1, b"".join(raw))), Message(b"".join(b"\x0d" + one for one in raw))
    assert packed.payload(1) == unpacked.payload(1) == b"".join(raw)


@given(st.text())
def test_text_survives(text):
    assert Message(field(2, text.encode())).text(2) == text


def test_absent_fields_have_defaults():
    empty = Message(b"")
    assert (empty.integer(1), empty.text(2), empty.message(3), empty.messages(4)) == (0, "", None, [])


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\x0a\x05abc", "expected 5 bytes"),
        (b"\x0a\xff\xff\xff\xff\x7f", "before the end"),
        (b"\x08\x80", "rest of a number"),
        (b"\x08" + b"\xff" * 11, "at most 10 bytes"),
        (b"\x0d\x00\x00", "expected 4 bytes"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x00", "field of number 1 to 536870911 .*, got 0"),
        (varint(1 << 32) + b"\x00", "field of number 1 to 536870911 .*, got 536870912"),
    ],
)
def test_lengths_and_numbers_are_bounded(data, complaint):
    with pytest.raises(PackageError, match=complaint):
        Message(data)


def test_a_length_may_not_leave_the_enclosing_message():
    inner = b"\x0a\x03ab"  # says three bytes, has two; the byte after belongs to the outer message
    with pytest.raises(PackageError, match="expected 3 bytes"):
        Message(field(1, inner) + b"\x10\x01").message(1)


def test_wrong_kinds_are_refused():
    with pytest.raises(PackageError, match="expected an integer in field 1"):
        Message(field(1, b"x")).integer(1)
    with pytest.raises(PackageError, match="expected bytes in field 1"):
        Message(b"\x08\x01").text(1)
    with pytest.raises(PackageError, match="UTF-8"):
        Message(field(1, b"\xff")).text(1)


def test_singular_fields_and_map_keys_occur_once():
    with pytest.raises(PackageError, match="got it 2 times"):
        Message(b"\x08\x01\x08\x02").integer(1)
    with pytest.raises(PackageError, match="unique keys"):
        Message(field(1, field(1, b"k")) * 2).entries(1)


def test_nesting_is_bounded():
    data = b""
    for _ in range(MAX_DEPTH + 2):
        data = field(1, data)
    with pytest.raises(PackageError, match=f"at most {MAX_DEPTH} nested"):
        depth(Message(data))


def test_fields_of_one_file_are_counted_together(monkeypatch):
    monkeypatch.setattr("sd_mil.format.wire.MAX_FIELDS", 100)
    one_level = b"\x08\x01" * 90
    assert Message(one_level).integers(1).size == 90
    with pytest.raises(PackageError, match="at most 100 fields"):
        Message(b"\x08\x01" * 101)
    halves = Message(field(1, one_level[:100]) + field(2, one_level[:100]))
    halves.message(1)
    with pytest.raises(PackageError, match="at most 100 fields"):
        halves.message(2)
    with pytest.raises(PackageError, match="at most 100 fields"):
        Message(field(1, b"") * 60).messages(1)  # what is empty takes memory, too
    with pytest.raises(PackageError, match="at most 100 fields"):
        Message(field(1, b"\x01" * 101)).integers(1)


@given(st.binary(max_size=60))
def test_what_protobuf_does_not_parse_is_refused(data):
    """protobuf skips fields that it does not know, as an empty message knows none."""
    empty = pytest.importorskip("google.protobuf.empty_pb2").Empty
    message = pytest.importorskip("google.protobuf.message")
    try:
        Message(data)
    except PackageError:
        return
    try:
        empty.FromString(data)
    except message.DecodeError:
        pytest.fail(f"{data!r} was read")


def depth(message):
    inner = message.message(1)
    return 0 if inner is None else 1 + depth(inner)
