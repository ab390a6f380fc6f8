"""Decides which files are images: by suffix, or by content for unknown suffixes. Imports neither torch nor Pillow."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from alexnet_lab.errors import names_of

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "DIB": (".dib",),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "ICNS": (".icns",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "DDS": (".dds",),
    "PSD": (".psd",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgba"),
    "SUN": (),
    "BLP": (".blp",),
    "FTEX": (),
    "FLI": (".fli", ".flc"),
    "GBR": (".gbr",),
    "MSP": (),
    "PCD": (),
    "PIXAR": (),
    "FITS": (".fits",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "XVTHUMB": (),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
    "IM": (),
}
"""The formats that Pillow decodes without other programs, likely ones first, with their unambiguous suffixes.

TGA has no signature at its start, so it follows those that have one. Pillow stops at a format that it does not have: IM
is last because Pillow 15 removes it.
"""
FORMATS = tuple(SUFFIXES)
NOT_DECODED = {
    "EPS": "needs Ghostscript, an external program",
    "IPTC": "opens the contained image in any format, including EPS",
    "BUFR": "a stub without a decoder",
    "GRIB": "a stub without a decoder",
    "HDF5": "a stub without a decoder",
    "WMF": "a stub without a decoder",
    "MPEG": "has no decoder",
    "IMT": "an arbitrary text header; the format is obsolete",
    "MCIDAS": "sensor values of unknown range",
    "SPIDER": "sensor values of unknown range",
}
"""Pillow's other readers, and the reasons why they are not used."""
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
ARCHIVE_SUFFIXES = frozenset({".tar", ".zip"})

_NAMES = {
    "text, tables, arrays": """.txt .csv .tsv .xml .json .jsonl .yaml .yml .toml .ini .cfg .md .rst .html .htm .css .js
        .log .lst .names .py .pyc .ipynb .sh .m .mat .npy .npz .pkl .pickle .pt .pth .ckpt .onnx .safetensors .parquet
        .arrow .feather .tfrecord .tfrecords .h5 .hdf5 .bufr .grib""",
    "camera raw, which begins like a TIFF, with a thumbnail as its first image": """.cr2 .cr3 .crw .nef .nrw .arw .sr2
        .srf .srw .dng .orf .rw2 .raf .pef .3fr .fff .iiq .kdc .dcr .mrw .erf .mef .mos .rwl .x3f .raw""",
    "copies, unfinished downloads": ".bak .orig .old .tmp .swp .part .partial .crdownload .aria2 .download",
}
_TEXT, _RAW, _COPIES = (frozenset(suffixes.split()) for suffixes in _NAMES.values())
"""Suffixes of files that are ignored without opening them."""

LONGEST_SUFFIX = 12
HEADER_BYTES = 2052
_NUMBER = rb"\s+(?:#[^\n]*\n\s*)*\d+"
_HEADERS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "AVIF": rb"....ftypavi[fs]",
    "JPEG2000": rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    "PPM": rb"P[1-6f]" + 2 * _NUMBER + rb"\s",
    "DIB": rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0",
    "ICO, CUR": rb"\0\0[\x01\x02]\0[^\0]\0...\0",
    "ICNS": rb"icns",
    "PCX": rb"\n[\0\x02\x03\x05]\x01[\x01\x02\x04\x08]",
    "DCX": rb"\xb1\x68\xde\x3a",
    "DDS": rb"DDS \x7c",
    "PSD": rb"8BPS\0\x01",
    "QOI": rb"qoif",
    "SGI": rb"\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]",
    "SUN": rb"\x59\xa6\x6a\x95",
    "BLP": rb"BLP[12]",
    "FTEX": rb"FTEX",
    "FLI": rb"....[\x11\x12]\xaf.{8}[\0\x03]\0",
    "GBR": rb".{20}GIMP",
    "IM": rb"Image type: ",
    "MSP": rb"DanM|LinS",
    "PCD": rb".{2048}PCD_",
    "PIXAR": rb"\x80\xe8\0\0",
    "FITS": rb"SIMPLE  =",
    "XBM": rb"\s*#define[ \t]+\S+_width\s",
    "XPM": rb"/\* XPM \*/",
    "XVTHUMB": rb"P7 332",
}
"""Signatures of `FORMATS`, except TGA."""
_HEADER = re.compile(b"|".join(_HEADERS.values()), re.DOTALL)

_LOOK_ALIKES = {
    "HEIF": re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "),
    "EPS": re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"),
    "PDF": re.compile(rb"%PDF"),
    "XML, such as SVG": re.compile(rb"\s*<(?:\?xml|svg|!--)"),
    "a web page": re.compile(rb"\s*<(?:!doctype html|html|head)", re.IGNORECASE),
    "text": re.compile(rb"[\t\n\r -~]+\Z"),
}


def suffix_of(name: str) -> str:
    """The suffix in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def counted_suffix(name: str) -> str:
    """The suffix for counting ignored files; empty if it is not a real suffix, such as part of a sentence."""
    suffix = suffix_of(name)
    return suffix if len(suffix) <= LONGEST_SUFFIX and suffix.isprintable() and " " not in suffix else ""


def is_image_name(name: str) -> bool | None:
    """Whether a file of this name is a readable image; None if its content must decide.

    Files that are often as numerous as images but never images, such as labels, are not opened.
    """
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return True
    if suffix in _RAW or suffix in _COPIES or name.endswith("~"):
        return False
    # `photo.png.txt` may be a PNG.
    is_text = suffix in _TEXT and suffix_of(name[: -len(suffix)]) not in IMAGE_SUFFIXES
    return False if is_text else None


def is_image_header(start: bytes) -> bool:
    """Whether a file whose first `HEADER_BYTES` bytes are `start` is a readable image."""
    return _HEADER.match(start) is not None


def unidentified(data: bytes, otherwise: str = "") -> str:
    """The reason why a file's content is not an image; `otherwise` is appended if its type is unknown."""
    if not data:
        return "the file is empty"
    known = next((kind for kind, start in _LOOK_ALIKES.items() if start.match(data[:HEADER_BYTES])), None)
    return "not an image in a format that Pillow can decode" + (f"; the content is {known}" if known else otherwise)


@dataclass
class LeftOut:
    """The ignored files of folders and archives, except hidden files."""

    by_content: Counter[str] = field(default_factory=Counter)
    """Files that were opened and are not images, by suffix."""
    by_name: Counter[str] = field(default_factory=Counter)
    """Files that were not opened, by suffix."""
    broken_links: list[str] = field(default_factory=list)
    """Broken links that are not named like an image."""
    loops: list[str] = field(default_factory=list)
    """Links to a folder that contains them."""

    def lines(self) -> list[str]:
        """One line per non-empty kind."""
        lines = {
            "not images that Pillow can decode": _counted(self.by_content),
            "by their names, not opened": _counted(self.by_name),
            "broken links": names_of(sorted(self.broken_links)),
            "links to a folder that contains them": names_of(sorted(self.loops)),
        }
        return [f"left out ({reason}): {what}" for reason, what in lines.items() if what]


def _counted(suffixes: Mapping[str, int], shown: int = 8) -> str:
    """`1,200 .heic, 1 without suffix`, the most frequent first."""
    ranked = sorted(suffixes.items(), key=lambda one: (-one[1], one[0]))
    parts = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in ranked[:shown]]
    others = sum(count for _, count in ranked[shown:])
    return ", ".join(parts + ([f"{others:,} with other suffixes"] if others else []))
