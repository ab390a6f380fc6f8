"""The meaning of a key is the comment behind it or above it."""

from pathlib import Path

from alexnet_lab.config.meanings import Key, read_keys, read_title

TEXT = """\
# @package _global_
# About the file,
# in two lines.
#
# A second paragraph.
defaults:
  - other

first: 1  # behind the value,
          # and continued
plain: "a # b"
#         # not aligned with anything

# A section.

# above the key,
# in two lines
above: [1,
  2]  # and behind it
node:
  # of an inner key
  inner: ${a.b}
  _target_: x.y
empty: {}  # no keys
only:
  _target_: x.y
"""


def test_comments_are_the_meanings_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(TEXT)
    assert read_keys(path) == [
        Key("first", "1", "behind the value, and continued"),
        Key("plain", "a # b", ""),
        Key("above", "[1, 2]", "above the key, in two lines and behind it"),
        Key("node.inner", "${a.b}", "of an inner key"),
        Key("empty", "{}", "no keys"),
        Key("only", "{_target_: x.y}", ""),
    ]
    assert read_title(path) == ["About the file,", "in two lines."]


def test_file_without_keys_has_none(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    for text in ("# Nothing.\n{}\n", "", "# Nothing.\n"):
        path.write_text(text)
        assert read_keys(path) == []


def test_title_is_not_the_meaning_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("# Title.\nkey: 1\n")
    assert read_keys(path) == [Key("key", "1", "")]
