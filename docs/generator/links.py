"""The links in the project's pages and texts; `make links` lists the external ones with the files that contain them."""

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[`~]*[ ]*$|\Z)", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
INLINE = re.compile(r"\]\(\s*(?:<([^>\n]*)>|((?:[^\s()]|\([^\s()]*\))+))(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)")
DEFINED = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)", re.MULTILINE)
IN_HTML = re.compile(r"<(?:a|img)\s[^>]*?(?:href|src)=[\"']([^\"']*)[\"']", re.IGNORECASE)
BARE = re.compile(r"(?<![\w(\"'<])https?://[^\s<>`\"']*[^\s<>`\"'.,;:!?)\]]|(?<=<)https?://[^\s>]+(?=>)")
ATX = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
SETEXT = re.compile(r"^(?! {0,3}[#>|-])( {0,3}\S[^\n]*)\n {0,3}(?:=+|-+)[ \t]*$", re.MULTILINE)
MENTIONED = re.compile(r"\bdocs/[\w./-]+?\.md(?:#[\w-]+)?")
URL = re.compile(r"https?://[\w-]+\.[^\s<>`\"'{}\\]*[\w/]")


def pages() -> list[Path]:
    """The Markdown files of the project."""
    return sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")})


def links(text: str) -> list[str]:
    """The targets of all links and images in a Markdown text, without those in code."""
    text = CODE.sub("", COMMENT.sub("", FENCE.sub("", text)))
    found = [one[0] or one[1] for one in INLINE.findall(text)]
    text = INLINE.sub("](", text)
    found += DEFINED.findall(text) + IN_HTML.findall(text) + BARE.findall(DEFINED.sub("", text))
    return list(dict.fromkeys(found))


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown text on GitHub: of its headings, repeated ones with a number, and of `<a id=...>`."""
    text = COMMENT.sub("", FENCE.sub("", text))
    headings = sorted([*ATX.finditer(text), *SETEXT.finditer(text)], key=lambda found: found.start())
    taken: set[str] = set()
    for heading in headings:
        name = anchor(heading[1])
        taken.add(_numbered(name, taken) if name in taken else name)
    return taken | set(re.findall(r"<a\s+(?:id|name)=[\"']([^\"']+)", text))


def _numbered(name: str, taken: set[str]) -> str:
    return next(one for number in count(1) if (one := f"{name}-{number}") not in taken)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading, the text behind the `#` in Markdown.

    Links, code, emphasis and HTML count with their text only. Letters become lower case, spaces dashes; of the other
    characters only letters, marks and digits of any script, `-` and `_` remain.
    """
    parts = re.split(r"(`+)(.+?)\1", heading.strip())
    for place in range(0, len(parts), 3):  # between the code
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"</?\w[^>]*>", "", parts[place]))
        parts[place] = html.unescape(re.sub(r"(?<![\w\\])([*_]{1,3})(?=\S)(.+?)(?<=[^\s\\])\1(?!\w)", r"\2", text))
    text = "".join(part for place, part in enumerate(parts) if place % 3 != 1)
    return "".join("-" if sign == " " else sign for sign in text.lower() if sign in " -" or _is_word(sign))


def _is_word(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return kind[0] in "LM" or kind in ("Nd", "Pc")


def wrong_links(path: Path) -> list[str]:
    """The internal links of a Markdown file that lead nowhere, each with the reason."""
    found = []
    for link in links(path.read_text(encoding="utf-8")):
        if not re.match(r"[a-z][a-z0-9+.-]*:", link, re.IGNORECASE):
            found += [f"{path.relative_to(ROOT)}: {link}: {reason}" for reason in _problems(path, link)]
    return found


def _problems(path: Path, link: str) -> Iterator[str]:
    place, _, name = unquote(html.unescape(link)).partition("#")
    target = path.parent / place if place else path
    if place.startswith("/"):
        yield "the link must be relative"
    elif not _exists(target):
        yield "there is no such file"
    elif name and (target.suffix != ".md" or name not in anchors(target.read_text(encoding="utf-8"))):
        yield "there is no such heading"


def _exists(path: Path) -> bool:
    """Whether the path exists with these capitals, in the project."""
    real = path.resolve()
    return real.is_relative_to(ROOT) and all(
        one.name in {other.name for other in one.parent.iterdir()} if one.parent.is_dir() else False
        for one in [real, *real.parents]
        if one.is_relative_to(ROOT) and one != ROOT
    )


def texts() -> list[Path]:
    """Files other than Markdown whose messages, comments and docstrings name pages and addresses."""
    kinds = ("src/**/*.py", "src/**/*.html", "conf/**/*.yaml", "docs/**/*.py", "docs/*.yaml", "benchmarks/*.py")
    return sorted({path for kind in kinds for path in ROOT.glob(kind)} | {ROOT / "Makefile", ROOT / "pyproject.toml"})


def external() -> dict[str, list[str]]:
    """Every external address in pages and texts, with the files that contain it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in [*pages(), *texts()]:
        text = path.read_text(encoding="utf-8")
        for link in dict.fromkeys(links(text) if path.suffix == ".md" else URL.findall(text)):
            if re.match(r"[a-z]+:", link):
                found[link].append(path.relative_to(ROOT).as_posix())
    return dict(sorted(found.items()))


if __name__ == "__main__":
    for address, files in external().items():
        print(f"{address}  {', '.join(files)}")
