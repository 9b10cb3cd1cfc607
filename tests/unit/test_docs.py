"""Documentation reads well on a code host: plain Markdown, links that work, nothing outdated."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

# What Sphinx and MyST understand and a code host shows as it stands.
FENCED = re.compile(r"^\s*(?:`{3,}|~{3,}|:{3,})\{", re.MULTILINE)
COLONS = re.compile(r"^\s*:{3,}", re.MULTILINE)
ROLE = re.compile(r"\{[a-z][\w:.-]*\}`")
TARGET = re.compile(r"^\([\w-]+\)=\s*$", re.MULTILINE)
SUBSTITUTION = re.compile(r"\{\{.*?\}\}")
COMMENT = re.compile(r"^% ", re.MULTILINE)

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,}).*?^\s*\2`*\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def without_code(text: str) -> str:
    """A page without its examples, in which anything may stand."""
    # A role's text stands in backquotes, too.
    return re.sub(r"(?<!\})`[^`\n]+`", "", FENCE.sub("", text))


def foreign(text: str) -> list[str]:
    """What of a page a code host would not understand."""
    prose = without_code(text)
    found = FENCED.findall(text)
    for pattern in (COLONS, ROLE, TARGET, COMMENT, SUBSTITUTION):
        found += pattern.findall(prose)
    return found


def anchors(text: str) -> set[str]:
    """The anchors that a code host gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", text), re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while (anchor := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(anchor)
    return found


def broken(page: Path, text: str) -> list[str]:
    """The links of a page to files and headings that are not there."""
    found = []
    for link in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.is_relative_to(ROOT) and target.exists()
        known = not anchor or (inside and anchor in anchors(target.read_text("utf-8")))
        if not (inside and known):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_has_nothing_that_only_sphinx_understands(page: Path) -> None:
    assert not foreign(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert not broken(page, page.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "```{include} generated/commands.md\n```\n",
        "```{note}\nMind this.\n```\n",
        ":::{warning}\nMind this.\n:::\n",
        "See {ref}`tiers`, please.\n",
        "See {py:class}`Broker`, please.\n",
        "(tiers)=\n## Tiers\n",
        "Version {{ version }}.\n",
    ],
)
def test_what_only_sphinx_understands_is_found(text: str) -> None:
    assert foreign(text)


def test_what_looks_like_it_in_an_example_is_none() -> None:
    assert not foreign('```html\n{{ offer.why }}\n```\n\nSend `{"tier": "small"}` to `{id}`.\n')


def test_links_to_nowhere_are_found() -> None:
    text = "[a](gone.md) [b](README.md#gone) [c](../outside.md) [d](#gone) [e](#here)\n\n## Here\n"
    page = ROOT / "README.md"
    there = page.read_text("utf-8")
    assert broken(page, text) == ["gone.md", "README.md#gone", "../outside.md", "#gone", "#here"]
    assert not broken(page, f"[x](#{sorted(anchors(there))[0]}) [y](https://example.org/z)")


def test_the_index_lists_every_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text("utf-8")
    listed = {link.partition("#")[0] for link in LINK.findall(text)}
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")}
    assert pages - listed == {"index.md"}


def test_the_files_that_a_first_change_touches_are_there() -> None:
    text = (ROOT / "docs" / "how-to" / "first-change.md").read_text("utf-8")
    named = set(re.findall(r"`((?:jupyterhub_migspawner|tests|docs)/[^`\s]+)`", text))
    assert len(named) > 15
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_generated_pages_of_the_reference_are_up_to_date() -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for name, text in generate["pages"]().items():
        written = (ROOT / "docs" / "reference" / name).read_text("utf-8")
        assert written == text, f"{name} is out of date: run `make reference`."


def test_the_generated_pages_are_the_same_in_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    before = generate["pages"]()
    monkeypatch.setenv("COLUMNS", "200")
    assert generate["pages"]() == before


def test_nothing_says_to_install_the_package_from_an_index() -> None:
    code = sorted((ROOT / "jupyterhub_migspawner").rglob("*.py"))
    examples = sorted((ROOT / "config").rglob("*.py"))
    for file in (*PAGES, *code, *examples):
        found = re.findall(r"install '?jupyterhub-migspawner\b.*", file.read_text("utf-8"))
        assert not found, file
