"""Elements of an SVG document as text, and the style of our drawings."""

from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTHS = {"ijl.,:;'|!": 0.3, "frt ()[]-": 0.4, "mwMW@%": 0.95, "ABCDEFGHKNOQRUVXYZ<>=+": 0.78}
"""Widths of letters in font sizes, as in DejaVu Sans, a wide one; other letters: see `width_of`."""
STYLE = """
text{font-family:Helvetica,Arial,"Liberation Sans",sans-serif;font-size:14px;fill:#3c4043}
.c{text-anchor:middle}.e{text-anchor:end}.b{font-weight:bold;fill:#202124}.t{font-size:19px}.n{font-size:12px}.r{fill:#c5221f}
.h{paint-order:stroke;stroke:#fff;stroke-width:3px;stroke-linejoin:round}
.input *{fill:#e8eaed;stroke:#5f6368}.convolution *{fill:#aecbfa;stroke:#1a56b0}
.pool *{fill:#a8dab5;stroke:#137333}.dense *{fill:#fdd663;stroke:#b06000}.other *{fill:#d7aefb;stroke:#681da8}
.input *,.convolution *,.pool *,.dense *,.other *{stroke-width:.8;stroke-linejoin:round}
.top{fill-opacity:.35}.front{fill-opacity:.7}.side{fill-opacity:.95}
.k{fill:#ea4335;fill-opacity:.22;stroke:#c5221f;stroke-width:.8;stroke-linejoin:round}
.l{stroke:#c5221f;stroke-width:.7;fill:none}.f{fill:#f9ab00;fill-opacity:.13;stroke:#b06000;stroke-width:.5}.g{fill:#80868b;fill-opacity:.13;stroke:#5f6368;stroke-width:.5}
.s{stroke:#202124;stroke-width:1.5;fill:none}.z{fill:#f4f6f8}
""".strip().replace("\n", "")


class Point(NamedTuple):
    x: float
    y: float


def width_of(text: str, size: float = 14) -> float:
    """About the width of the text in a wide sans-serif font of this size."""
    return size * sum(next((width for letters, width in WIDTHS.items() if letter in letters), 0.65) for letter in text)


def polygon(corners: Iterable[Point], style: str) -> str:
    return f'<polygon class="{style}" points="{" ".join(f"{digits(x)},{digits(y)}" for x, y in corners)}"/>'


def rectangle(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect class="{style}" x="{digits(x)}" y="{digits(y)}" width="{digits(width)}" height="{digits(height)}"/>'


def label(text: str, x: float, y: float, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return f'<text{kind} x="{digits(x)}" y="{digits(y)}">{xml(text)}</text>'


def xml(text: str) -> str:
    """The text with XML's special characters escaped; other control characters, which XML excludes, become `?`."""
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def digits(number: float) -> str:
    """At most two decimals: the same text on every machine."""
    return f"{number:.2f}".rstrip("0").rstrip(".")
