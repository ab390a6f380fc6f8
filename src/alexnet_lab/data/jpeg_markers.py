"""Reads the markers of a JPEG file without decoding it. Imports neither torch nor Pillow."""

JPEG_MAGIC, END_OF_IMAGE = b"\xff\xd8", b"\xff\xd9"
START_OF_SCAN = 0xDA
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xDA), 0xFF}
"""Markers without a length, and fill bytes; ordinary files have none of them before the size."""


def jpeg_shape(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and number of channels from a JPEG's header; None if the header is unusual."""
    place = 2
    while data.startswith(JPEG_MAGIC) and place + 10 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in START_OF_FRAME:
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return height, width, data[place + 9]
        if marker in WITHOUT_LENGTH or length < 2:
            break
        place += 2 + length
    return None


def is_cut(data: bytes) -> bool:
    """Whether a JPEG's pixel data lacks an end-of-image marker: libjpeg would decode the missing part to grey."""
    if data.endswith(END_OF_IMAGE) or not data.startswith(JPEG_MAGIC):
        return False
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == START_OF_SCAN:
            return data.find(END_OF_IMAGE, place) < 0
        if marker in WITHOUT_LENGTH or length < 2:
            break  # an unusual header; the decoder decides
        place += 2 + length
    return False
