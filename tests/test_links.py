"""Links between the project's pages lead to files and headings that exist; anchors are those of GitHub."""

import re
from pathlib import Path

import pytest
from docs.generator import links
from docs.generator.links import ROOT, anchor, anchors, external, pages, texts, wrong_links

HTTP_ONLY = {
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # no HTTPS; every file is compared with its checksum
    "http://www.w3.org/2000/svg",  # the name of SVG's elements; nothing is loaded from it
}


def test_internal_links_lead_to_files_and_headings() -> None:
    assert {"README.md", "docs/configuration.md"} <= {page.relative_to(ROOT).as_posix() for page in pages()}
    assert [problem for page in pages() for problem in wrong_links(page)] == []


def test_pages_named_in_messages_and_comments_exist() -> None:
    named = [(path, one) for path in texts() for one in links.MENTIONED.findall(path.read_text())]
    assert len(named) > 30
    wrong = []
    for path, one in named:
        file, _, heading = one.partition("#")
        if not (ROOT / file).is_file() or (heading and heading not in anchors((ROOT / file).read_text())):
            wrong.append(f"{path.relative_to(ROOT)}: {one}")
    assert wrong == []


def test_tests_named_on_pages_exist() -> None:
    named = [one for page in pages() for one in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text())]
    assert len(named) > 10
    assert [one for one in named if f"def {one[1]}(" not in (ROOT / one[0]).read_text()] == []


def test_external_links_are_https_to_a_host() -> None:
    found = external()
    assert "https://pytorch.org/get-started/locally/" in found
    assert [link for link in found if not re.match(r"https://[\w-]+\.", link) and link not in HTTP_ONLY] == []


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("Files of a run", "files-of-a-run"),
        ("What is new?  Two spaces, `code` & more!", "what-is-new--two-spaces-code--more"),
        ("`model=lenet`: the_network", "modellenet-the_network"),
        ("*Emphasis* and __more__, snake_case_name", "emphasis-and-more-snake_case_name"),
        ("[A link](page.md#x) and ![a picture](a.png)", "a-link-and-a-picture"),
        ("hydra/launcher", "hydralauncher"),
        ("Größe, Été, 数据 1²", "größe-été-数据-1"),
        ("Café", "café"),
        ("<b>bold</b> &amp; a < b", "bold--a--b"),
        ("`<run>`", "run"),
        ("1.2.0 - 2026-11-26", "120---2026-11-26"),
        ("\N{ROCKET} Start", "-start"),
    ],
)
def test_anchors_are_those_of_github(heading: str, name: str) -> None:
    assert anchor(heading) == name


def test_repeated_headings_are_numbered_and_code_has_none() -> None:
    text = "# A\n\n```sh\n# not a heading\n```\n\n## A ##\n\n## A-1\n\n## A\n\nUnderlined\n---\n\n<a id='own'></a>\n"
    assert anchors(text) == {"a", "a-1", "a-1-1", "a-2", "underlined", "own"}


def test_wrong_links_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/other.md").write_text("# Real heading\n")
    (tmp_path / "a b.png").touch()
    page = tmp_path / "page.md"
    page.write_text(
        "# Top\n[fine](docs/other.md#real-heading) [top](#top) [folder](docs) ![fine](<a b.png>) ![fine](a%20b.png)\n"
        "[far](https://example.org/x_(y)) `[code](nowhere.md)` <a href='docs/other.md'>fine</a>\n"
        "```\n[in code](nowhere.md)\n```\n"
        "[1](docs/missing.md) [2](docs/Other.md) [3](docs/other.md#real-headin) [4](#bottom) [5](/docs/other.md)\n"
        "[6](../outside.md 'title') [7][ref] ![8](docs/other.md#Real-heading)\n\n[ref]: gone.md\n"
    )
    (tmp_path.parent / "outside.md").touch()
    assert wrong_links(page) == [
        "page.md: docs/missing.md: there is no such file",
        "page.md: docs/Other.md: there is no such file",
        "page.md: docs/other.md#real-headin: there is no such heading",
        "page.md: #bottom: there is no such heading",
        "page.md: /docs/other.md: the link must be relative",
        "page.md: ../outside.md: there is no such file",
        "page.md: docs/other.md#Real-heading: there is no such heading",
        "page.md: gone.md: there is no such file",
    ]
    assert "https://example.org/x_(y)" in links.links(page.read_text())
