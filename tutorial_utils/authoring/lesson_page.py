"""The HTML page of a notebook, or of a guide in Markdown: nbconvert's, with the course's template, links and contents.

Pages need nothing from the network, and no file but the pictures beside them.
"""

import html
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from tutorial_utils.authoring.course_page import LESSON_TEMPLATE

SOLUTIONS = "solutions"  # the folder beside the lessons
GLOSSARY = "GLOSSARY.md"  # beside the lessons
GUIDES = ("TROUBLESHOOTING.md", "STACKS.md")  # beside the folder of the lessons

_LINK = re.compile(r'<a href="(?![a-zA-Z][a-zA-Z0-9+.-]*:|#)([^"?#]+)(#[^"]*)?"([^>]*)>(.*?)</a>', re.DOTALL)
_HEADING = re.compile(
    r'<h([1-6]) id="([^"]*)"([^>]*)>(.*?)<a class="anchor-link" href="[^"]*">(.*?)</a></h\1>', re.DOTALL
)
_CONTENTS = "<!-- contents -->"  # where the template wants them


def page_of(file: Path, lessons: Path) -> str | None:
    """Return where the page of a file lies, from the front page; None for a file that has no page, or isn't there.

    Args:
        file: A notebook or a Markdown file.
        lessons: The folder of the lessons.
    """
    file = Path(os.path.normpath(file))
    if not file.is_file():
        return None
    if file.suffix == ".ipynb" and file.parent in (lessons, lessons / SOLUTIONS):
        return file.relative_to(lessons).with_suffix(".html").as_posix()
    if file == lessons / GLOSSARY or (file.parent == Path(os.path.normpath(lessons / "..")) and file.name in GUIDES):
        return f"{file.stem}.html"
    return None


def of_notebook(notebook: NotebookNode, path: Path, lessons: Path, title: str, ways: Mapping[str, str]) -> str:
    """Return the page of a notebook.

    Args:
        path: Where it lies: links in it start from there.
        lessons: The folder of the lessons.
        title: The title of the page.
        ways: What its head leads to: names, and the pages' places from the front page.
    """
    page = _page(notebook, path, lessons, title, ways)
    return page.replace(_CONTENTS, _contents(page), 1)


def of_guide(path: Path, lessons: Path, title: str, ways: Mapping[str, str]) -> str:
    """Return the page of a Markdown file. Its headings have the anchors that they have on GitHub: links name those."""
    notebook = new_notebook(cells=[new_markdown_cell(path.read_text(encoding="utf-8"))])
    page = _page(notebook, path, lessons, title, ways)
    given = set(re.findall(r"""<a id=["']([^"']+)""", page))

    def heading(found: re.Match) -> str:
        level, own, more, text, sign = found.groups()
        name = re.sub(r"[^\w\- ]", "", html.unescape(re.sub(r"<[^>]*>", "", text)).lower()).strip().replace(" ", "-")
        name = own if name in given else name
        given.add(name)
        return f'<h{level} id="{name}"{more}>{text}<a class="anchor-link" href="#{name}">{sign}</a></h{level}>'

    page = _HEADING.sub(heading, page)
    return page.replace(_CONTENTS, _contents(page), 1)


def _page(notebook: NotebookNode, path: Path, lessons: Path, title: str, ways: Mapping[str, str]) -> str:
    """Return a page without its contents."""
    lessons = Path(os.path.normpath(lessons))
    to_front = "../" * (page_of(path, lessons) or "").count("/")
    resources = {"metadata": {"name": title}, "ways": {name: to_front + page for name, page in ways.items()}}
    exporter = HTMLExporter(template_name="lab", raw_template=LESSON_TEMPLATE)
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    body = _linked(body, path.parent, lessons, to_front)
    return re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", body)  # the corner of a table is the heading of nothing


def _linked(page: str, folder: Path, lessons: Path, to_front: str) -> str:
    """Return a page whose links lead to pages. What has none, such as a file of the package, becomes text."""

    def to_page(link: re.Match) -> str:
        target, anchor, more, text = link[1], link[2] or "", link[3], link[4]
        file = folder / unquote(target)
        if page := page_of(file, lessons):
            return f'<a href="{to_front}{page}{anchor}"{more}>{text}</a>'
        return text if file.exists() and file.suffix in (".ipynb", ".md", ".py", ".yml") else link[0]

    head, body, rest = page.partition('<main id="lesson">')
    return head + body + _LINK.sub(to_page, rest)


def _contents(page: str) -> str:
    """Return a folded list of a page's headings of the second level; nothing where there are fewer than three."""
    headings = [
        (name, re.sub(r"<[^>]*>", "", text)) for level, name, _, text, _ in _HEADING.findall(page) if level == "2"
    ]
    if len(headings) < 3:
        return ""
    items = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in headings)
    return f"<details><summary>On this page</summary><ul>{items}</ul></details>"
