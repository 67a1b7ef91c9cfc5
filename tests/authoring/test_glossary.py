"""The glossary: each term once, in order, in two languages, and found by every link that leads to it."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from tutorial_utils.authoring import notebook_form

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "notebooks" / "GLOSSARY.md"
NOTEBOOKS = sorted(path for path in GLOSSARY.parent.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "STACKS.md", "TROUBLESHOOTING.md")]

HEADING = re.compile(r'### <a id="(?P<anchor>[^"]+)"></a>(?P<name>.+?) · (?P<chinese>.+)')
LINK = re.compile(r"\]\(\s*<?([^)\s>]*)")
SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


@dataclass(frozen=True)
class Term:
    name: str
    chinese: str
    anchor: str
    text: str


def terms(page: str) -> list[Term]:
    """Return the terms of a glossary, in order; each section must be one."""
    sections = re.split(r"^(?=#+ )", page, flags=re.MULTILINE)
    found = []
    for section in sections[2:]:  # the first is empty, the second holds the title
        heading, _, text = section.strip().partition("\n\n")
        match = HEADING.fullmatch(heading)
        assert match, f"A heading isn't of the form ### <a id=...></a>Term · 中文: {heading}"
        found.append(Term(match["name"], match["chinese"], match["anchor"], text))
    return found


def faults(page: str) -> list[str]:
    """Return what is wrong with a glossary."""
    listed = terms(page)
    names = [term.name.casefold() for term in listed]
    anchors = [term.anchor for term in listed]
    found = [f"{name} is there twice" for name in {name for name in names if names.count(name) > 1}]
    found += [f"{one} stands before {other}" for one, other in itertools.pairwise(names) if one > other]
    for term in listed:
        if term.anchor != re.sub(r"[^a-z0-9]+", "-", term.name.lower()).strip("-"):
            found.append(f"{term.name} has the anchor {term.anchor}")
        if "\n" in term.text or not 1 <= len(SENTENCE_END.findall(term.text)) <= 3:
            found.append(f"{term.name} isn't explained in one short paragraph")
        for target in LINK.findall(term.text):
            if target.removeprefix("#") not in anchors or target == f"#{term.anchor}":
                found.append(f"{term.name} links to {target}")
    return found


def broken_links(text: str, folder: Path, glossary: Path = GLOSSARY) -> list[str]:
    """Return the links to the glossary in a text that lies in a folder, and that lead to no file or no term."""
    anchors = {term.anchor for term in terms(glossary.read_text(encoding="utf-8"))}
    links = [target for target in LINK.findall(text) if glossary.stem.casefold() in target.casefold()]
    parts = {target: target.partition("#") for target in links if "://" not in target}
    return [
        target
        for target, (path, _, anchor) in parts.items()
        if (folder / path).resolve() != glossary.resolve() or (anchor and anchor not in anchors)
    ]


def prose(notebook) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_glossary_is_in_order():
    page = GLOSSARY.read_text(encoding="utf-8")
    assert faults(page) == []
    assert len(terms(page)) > 40


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_to_the_glossary_resolve(path):
    text = prose(notebook_form.read(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    text = re.sub(r"`[^`\n]*`", "", text)  # an example of a link
    assert broken_links(text, path.parent) == []


# --- the tests themselves --------------------------------------------------------------------------------------------

ENTRY = '### <a id="{anchor}"></a>{name} · 词\n\n{text}\n\n'


def small(*entries):
    listed = [ENTRY.format(anchor=anchor, name=name, text=text) for anchor, name, text in entries]
    return "# Glossary\n\nIntroduction.\n\n" + "".join(listed)


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ([("a", "A", "One."), ("b-c", "B c", "See [A](#a). Two.")], None),
        ([("a", "A", "One."), ("a", "a", "One.")], "a is there twice"),
        ([("b", "B", "One."), ("a", "A", "One.")], "b stands before a"),
        ([("A", "A", "One.")], "A has the anchor A"),
        ([("a", "A", "See [B](#b).")], "A links to #b"),
        ([("a", "A", "See [A](#a).")], "A links to #a"),
        ([("a", "A", "1. 2. 3. 4.")], "A isn't explained in one short paragraph"),
        ([("a", "A", "")], "A isn't explained in one short paragraph"),
    ],
)
def test_faults_are_found(entries, fault):
    assert faults(small(*entries)) == ([fault] if fault else [])


@pytest.mark.parametrize("heading", ["### A · 词", '### <a id="a"></a>A'])
def test_term_without_anchor_or_chinese_is_found(heading):
    with pytest.raises(AssertionError, match="A heading isn't of the form"):
        terms(f"# Glossary\n\n{heading}\n\nOne.")


@pytest.mark.parametrize(
    ("link", "is_broken"),
    [
        ("GLOSSARY.md", False),
        ("GLOSSARY.md#a", False),
        ("GLOSSARY.md#b", True),
        ("../GLOSSARY.md#a", True),
        ("glossary.md#a", True),
        ("GLOSSARY.ipynb", True),
        ("https://example.org/GLOSSARY.md#z", False),
    ],
)
def test_broken_links_are_found(tmp_path, link, is_broken):
    glossary = tmp_path / "GLOSSARY.md"
    glossary.write_text(small(("a", "A", "One.")), encoding="utf-8")
    lesson = new_notebook(cells=[new_markdown_cell(f"# A lesson\n\nA [word]({link}), and more.")])
    found = broken_links(prose(lesson), tmp_path, glossary)
    assert found == ([link] if is_broken else [])
