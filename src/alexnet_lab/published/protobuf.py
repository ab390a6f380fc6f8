"""Reads the wire format of Protocol Buffers: the fields of a message by number, without a schema and without copies.

Source: https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}
LONGEST_VARINT = 10
MOST_FIELDS = 100_000
"""Of a message; Caffe's have some hundreds. Each takes time and memory, and a hostile file may have millions."""


class Damaged(ValueError):
    """The bytes are not a valid message: a field extends beyond its end, has an unknown type, or there are too many."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field in order: an integer, or the bytes of a number, a text or an inner message.

    Raises:
        Damaged: the bytes are not a valid message.
    """
    place = count = 0
    while place < len(message):
        count += 1
        if count > MOST_FIELDS:
            raise Damaged(f"a message of more than {MOST_FIELDS:,} fields")
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(message, place)
        elif kind in SIZES:
            size = SIZES[kind]
        else:
            raise Damaged(f"a field of type {kind}")
        if number == 0 or size > len(message) - place:
            raise Damaged("a field that extends beyond its message")
        yield number, message[place : place + size]
        place += size


def varints(packed: memoryview) -> Iterator[int]:
    """The integers of a packed field."""
    place = 0
    while place < len(packed):
        value, place = _varint(packed, place)
        yield value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """The integer at `place`, and the place after it."""
    value = 0
    for position, byte in enumerate(message[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, place + position + 1
    raise Damaged("an integer that does not end")
