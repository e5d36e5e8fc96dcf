"""Rules for all files, and for the links of the documentation."""

import re
from pathlib import Path

import pytest

from tests.architecture.checkout import documents, relative, tracked_files

# Written with brackets so that this file does not find itself.
MACHINE_BOUND = re.compile(
    r"/wor[k]/|/far[m]/|/roo[t]/|/hom[e]/[a-z]|pypi\.or[g]|pythonhoste[d]|registry\.npmj[s]|deb\.debia[n]\.org"
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")


def prose(document: Path) -> str:
    """Text of a document without its code."""
    return INLINE_CODE.sub("`", FENCED.sub("", document.read_text(encoding="utf-8")))


def anchors(document: Path) -> set[str]:
    """Anchors that a Markdown file has: its headings in small letters, blanks as hyphens, without punctuation."""
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> list[str]:
    """Links of a document to a file or heading that is not there."""
    broken = []
    for target in LINK.findall(prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(f"{document.name}: {target}")
    return broken


def test_no_file_names_a_machine_or_a_registry() -> None:
    """Files hold no paths of one machine and no hosts of package registries: they must work elsewhere."""
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a certificate or an archive of a test
        found += [f"{relative(path)}: {hit.group()}" for hit in MACHINE_BOUND.finditer(text)]
    assert found == []


def test_links_of_the_documentation_resolve() -> None:
    """Each relative link in a Markdown file leads to a file of this checkout, and to a heading in it."""
    assert [link for document in documents() for link in broken_links(document)] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](b.md)", []),
        ("[a](b.md#the-first--second)", []),
        ("[a](#here)\n# Here", []),
        ("[a](https://example.org/x)", []),
        ("`[a](missing.md)`\n```\n[a](missing.md)\n```\n", []),
        ("[a](missing.md)", ["a.md: missing.md"]),
        ("[a](b.md#no-such)", ["a.md: b.md#no-such"]),
    ],
)
def test_the_link_check_sees(tmp_path: Path, text: str, expected: list[str]) -> None:
    """The check above tells links that lead somewhere from those that do not."""
    (tmp_path / "b.md").write_text("# The first & second\n", encoding="utf-8")
    document = tmp_path / "a.md"
    document.write_text(text, encoding="utf-8")
    assert broken_links(document) == expected
