"""Which files are images: by suffix, or by content if the suffix is not known. Imports neither torch nor Pillow."""

import os
import re
from collections import Counter
from collections.abc import Mapping

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
    "IM": (),
    "MSP": (),
    "PCD": (),
    "PIXAR": (),
    "FITS": (".fits",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "XVTHUMB": (),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}
"""The formats that Pillow decodes by itself, the likely ones first, each with the suffixes that mean nothing else.

TGA is the last because nothing at its start identifies it.
"""
FORMATS = tuple(SUFFIXES)
NOT_DECODED = {
    "EPS": "needs Ghostscript, an external program",
    "IPTC": "opens the image in it in any format, EPS included",
    "BUFR": "a stub without a decoder",
    "GRIB": "a stub without a decoder",
    "HDF5": "a stub without a decoder",
    "WMF": "a stub without a decoder",
    "MPEG": "has no decoder",
    "IMT": "a text header of any content; no file of today",
    "MCIDAS": "values of a sensor, whose range is not known",
    "SPIDER": "values of a sensor, whose range is not known",
}
"""Pillow's other readers, and why they are not used."""
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
ARCHIVE_SUFFIXES = frozenset({".tar", ".zip"})

_OTHERS = {
    "text, tables, arrays": """.txt .csv .tsv .xml .json .jsonl .yaml .yml .toml .ini .cfg .md .rst .html .htm .css .js
        .log .lst .names .py .pyc .ipynb .sh .m .mat .npy .npz .pkl .pickle .pt .pth .ckpt .onnx .safetensors .parquet
        .arrow .feather .tfrecord .tfrecords .record .rec .idx .lmdb .mdb .db .sqlite .h5 .hdf5 .hdf .bin .dat .data
        .md5 .sha1 .sha256 .url .lnk .bufr .grib .nii .dcm""",
    "documents, drawings": """.pdf .doc .docx .xls .xlsx .ppt .pptx .odt .rtf .tex .svg .svgz .eps .ps .ai .wmf .emf
        .xcf .kra""",
    "pictures that Pillow does not decode": ".heic .heif .hif .jxl .jxr .exr .hdr",
    "camera raw, which begins like a TIFF, with a thumbnail as its first image": """.cr2 .cr3 .crw .nef .nrw .arw .sr2
        .srf .srw .dng .orf .rw2 .raf .pef .3fr .fff .iiq .kdc .dcr .mrw .erf .mef .mos .rwl .x3f .raw""",
    "archives, programs": ".gz .tgz .bz2 .xz .zst .lz4 .7z .rar .iso .exe .dll .so",
    "films, sound": """.mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .3gp .mp3 .wav .flac .ogg .m4a .aac""",
    "copies, unfinished downloads": ".bak .orig .old .tmp .swp .part .partial .crdownload .aria2 .download",
}
OTHER_SUFFIXES = frozenset(suffix for suffixes in _OTHERS.values() for suffix in suffixes.split())
"""Suffixes of files that are not readable images; these files are never opened."""

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
"""How files of `FORMATS` begin, apart from TGA."""
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
    """The suffix under which a file that is left out is counted; empty if it is part of a sentence."""
    suffix = suffix_of(name)
    return suffix if len(suffix) <= LONGEST_SUFFIX and suffix.isprintable() and " " not in suffix else ""


def is_image_name(name: str) -> bool | None:
    """Whether a file with this name is a readable image; None if only its content can decide."""
    suffix = suffix_of(name)
    if suffix in IMAGE_SUFFIXES:
        return True
    return False if suffix in OTHER_SUFFIXES or name.endswith("~") else None


def is_image_header(start: bytes) -> bool:
    """Whether a file that begins with `start`, its first `HEADER_BYTES` bytes, is an image that can be read."""
    return _HEADER.match(start) is not None


def unidentified(data: bytes) -> str:
    """Why a file's content is not read as an image."""
    if not data:
        return "the file is empty"
    known = next((kind for kind, start in _LOOK_ALIKES.items() if start.match(data[:HEADER_BYTES])), None)
    return "not an image in a format that Pillow can decode" + (f"; the content is {known}" if known else "")


def left_out_line(left_out: Mapping[str, int], shown: int = 8) -> str:
    """The files that are not read, counted by suffix, in one line; empty where there are none."""
    if not left_out:
        return ""
    ranked = Counter(left_out).most_common()
    parts = [f"{count:,} {suffix or 'without suffix'}" for suffix, count in ranked[:shown]]
    others = sum(count for _, count in ranked[shown:])
    parts += [f"{others:,} with other suffixes"] if others else []
    return f"left out (not images that Pillow can decode): {', '.join(parts)}"
