"""The HTML page of a notebook or a document: nbconvert's page, linked with the other pages of its edition.

A page needs no network, and no other file but its pictures.
"""

import html
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html_mistune
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from tutorial_utils.authoring import notebook_form
from tutorial_utils.base.errors import LessonError
from tutorial_utils.base.lesson_names import PART, part_of

SOLUTIONS, IMAGES = "solutions", "images"  # folders beside the lessons
# What lessons link to, seen from their folder, and what the links to it are called.
DOCUMENTS = {"GLOSSARY.md": "Glossary", "../TROUBLESHOOTING.md": "Troubleshooting", "../STACKS.md": "GPUs and versions"}

_FOLDER = Path(__file__).parent
_TEMPLATE = (_FOLDER / "lesson.html.j2").read_text(encoding="utf-8")
_STYLE = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("theme.css", "lesson.css"))

_LINK = re.compile(r'<a href="([^":?#]+)((?:#[^"]*)?)"')
_HEADING = re.compile(r'<(h[1-6]) id="([^"]*)">(.*?)(?=<a class="anchor-link")', re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


class Link(NamedTuple):
    """A link to another page."""

    address: str  # relative to the page that it is on
    text: str


class Heading(NamedTuple):
    """A line of a table of contents."""

    level: str  # "h2" or "h3"
    id: str  # what a link to it says after "#"
    text: str  # as HTML


@dataclass(frozen=True)
class Edition:
    """The pages that are made together, so that they can link to each other.

    Besides the lessons, their solutions and the documents that they link to get pages.
    """

    lessons: Sequence[Path]  # notebooks, in the order in which they are read

    def solutions(self, lesson: Path) -> Path | None:
        """Return the notebook with a lesson's solutions; None where there is none."""
        path = lesson.parent / SOLUTIONS / lesson.name
        return path if path.exists() else None

    def documents(self) -> dict[Path, str]:
        """Return the files of the documents, each with its name."""
        folders = dict.fromkeys(lesson.parent for lesson in self.lessons)
        found = {Path(os.path.normpath(folder / name)): text for folder in folders for name, text in DOCUMENTS.items()}
        return {path: text for path, text in found.items() if path.exists()}

    def pages(self) -> dict[Path, str]:
        """Return the page of every file, relative to the edition's folder."""
        solutions = [path for lesson in self.lessons if (path := self.solutions(lesson))]
        return {
            **{path: f"{path.stem}.html" for path in (*self.lessons, *self.documents())},
            **{path: f"{SOLUTIONS}/{path.stem}.html" for path in solutions},
        }

    def html(self, notebook: NotebookNode, path: Path) -> str:
        """Return the page of a notebook that lies at a path: of a lesson, or of its solutions."""
        pages = self.pages()
        own = pages[path]
        ways = [Link("index.html", "All lessons")]
        ways += [Link(pages[document], text) for document, text in self.documents().items()]
        ways += [Link(pages[other], text) for text, other in self._counterparts(path)]
        course = {
            "style": _STYLE,
            "ways": [Link(_relative(page, own), text) for page, text in ways if page != own],
            "neighbours": list(self._neighbours(path)),
            "contents": list(_headings(notebook)),
        }
        exporter = HTMLExporter(template_name="lab", raw_template=_TEMPLATE)
        resources = {"metadata": {"name": title(notebook, path)}, "course": course}
        page, _ = exporter.from_notebook_node(notebook, resources=resources)
        page = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", page)  # the corner of a table is the heading of nothing
        return self._linked(page, path.parent, own)

    def document_html(self, path: Path) -> str:
        """Return the page of a document. Its headings have anchors as GitHub names them, since links count on those."""
        document = new_notebook(cells=[new_markdown_cell(path.read_text(encoding="utf-8"))])

        def with_anchor(heading: re.Match) -> str:
            anchor = _github_anchor(heading[3])
            return heading[0] if anchor == unquote(heading[2]) else f'<span id="{anchor}"></span>{heading[0]}'

        return _HEADING.sub(with_anchor, self.html(document, path))

    def _counterparts(self, path: Path) -> Iterator[tuple[str, Path]]:
        """Yield the solutions of a lesson, or the lesson of solutions."""
        for lesson in self.lessons:
            solutions = self.solutions(lesson)
            if path == lesson and solutions:
                yield "Solutions", solutions
            if path == solutions:
                yield "The lesson", lesson

    def _neighbours(self, path: Path) -> Iterator[tuple[str, Link]]:
        """Yield the lessons before and after this one, which lie in the same folder; none for another page."""
        lessons = list(self.lessons)
        place = lessons.index(path) if path in lessons else len(lessons) + 1
        for kind, index in (("previous", place - 1), ("next", place + 1)):
            if 0 <= index < len(lessons):
                name = f"{part_of(lessons[index]) or ''} {short_title(lessons[index])}".strip()
                yield kind, Link(f"{lessons[index].stem}.html", name)

    def _linked(self, page: str, folder: Path, own: str) -> str:
        """Return a page whose links to files lead to their pages. What has no page in this edition is no link there."""
        pages = {path.resolve(): page for path, page in self.pages().items()}

        def to_page(link: re.Match) -> str:
            target = (folder / unquote(link[1])).resolve()
            if target in pages:
                return f'<a href="{_relative(pages[target], own)}{link[2]}"'
            return link[0] if target.parent.name == IMAGES else "<a"

        return _LINK.sub(to_page, page)


def title(notebook: NotebookNode, path: Path) -> str:
    """Return the first heading of a notebook, or its file name where it has none."""
    markdown = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = (line[2:].strip() for source in markdown for line in source.splitlines() if line.startswith("# "))
    return next(headings, path.stem)


def short_title(path: Path) -> str:
    """Return the title of a notebook's file without "Lesson 04: ", which stands before it; else its file name."""
    try:
        text = title(notebook_form.read(path), path)
    except LessonError:  # which executing it will say
        return path.stem
    return re.sub(rf"^Lesson {PART}: (.)", lambda start: start[1].upper(), text)


def _headings(notebook: NotebookNode) -> Iterator[Heading]:
    """Yield the headings below the title, with the anchors that nbconvert gives them."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for level, anchor, text in _HEADING.findall(markdown2html_mistune(cell.source)):
                if level in ("h2", "h3"):
                    yield Heading(level, anchor, _TAG.sub("", text))


def _github_anchor(heading: str) -> str:
    """Return what GitHub names a heading, from its HTML."""
    words = re.sub(r"[^\w\- ]", "", html.unescape(_TAG.sub("", heading)).strip().lower())
    return words.replace(" ", "-")


def _relative(page: str, own: str) -> str:
    """Return the way from a page to another; both are relative to the edition's folder."""
    return f"{'../' * own.count('/')}{page}"
