import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_files import notebook_file

from tutorial_utils.authoring import notebook_form
from tutorial_utils.authoring.lesson_page import Edition, short_title, title


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    return tmp_path / "notebooks"


def page(edition, path):
    text = edition.document_html(path) if path.suffix == ".md" else edition.html(notebook_form.read(path), path)
    return BeautifulSoup(text, "html.parser")


def addresses(page, within):
    return [link.get("href") for link in page.select(f"{within} a") if "anchor-link" not in link.get("class", [])]


LINKS = (
    "[a](02_next.ipynb#A-lesson) [b](GLOSSARY.md#plan) [c](03_missing.ipynb) [d](../README.md) [e](https://x.org/y.md)"
    " [f](#A-lesson) [g](images/road.svg) [h](../STACKS.md#what-was-run-and-on-what)"
)


def test_links_lead_to_the_pages_of_the_edition(folder):
    first, second = notebook_file(folder, "01_lesson", text=LINKS), notebook_file(folder, "02_next")
    solutions = notebook_file(folder / "solutions", "01_lesson", text="[a](../GLOSSARY.md#plan) [b](../02_next.ipynb)")
    (folder / "GLOSSARY.md").write_text("# Glossary\n\n### <a id='plan'></a>Plan\n\nSee [lesson](01_lesson.ipynb).")
    (folder.parent / "STACKS.md").write_text("# Stacks\n\n## What was run, and on what")
    (folder.parent / "README.md").touch()
    edition = Edition([first, second])
    assert addresses(page(edition, first), ".jp-MarkdownOutput") == [
        *("02_next.html#A-lesson", "GLOSSARY.html#plan"),
        *(None, None),  # there is no such page: the text stays, and is no link
        *("https://x.org/y.md", "#A-lesson", "images/road.svg", "STACKS.html#what-was-run-and-on-what"),
    ]
    assert addresses(page(edition, solutions), ".jp-MarkdownOutput") == ["../GLOSSARY.html#plan", "../02_next.html"]
    glossary = page(edition, folder / "GLOSSARY.md")
    assert addresses(glossary, ".jp-MarkdownOutput") == [None, "01_lesson.html"]  # the first is the anchor
    assert glossary.find(id="plan")
    assert page(edition, folder.parent / "STACKS.md").find(id="what-was-run-and-on-what")


def test_pages_lead_to_each_other(folder):
    lessons = [notebook_file(folder, name) for name in ("01_a", "02_b", "03_c")]
    solutions = notebook_file(folder / "solutions", "02_b")
    (folder / "GLOSSARY.md").write_text("# Glossary")
    edition = Edition(lessons)
    neighbours = [addresses(page(edition, path), "nav .neighbours") for path in (*lessons, solutions)]
    assert neighbours == [["02_b.html"], ["01_a.html", "03_c.html"], ["02_b.html"], []]
    second = page(edition, lessons[1])
    assert [link.get_text(" ", strip=True) for link in second.select(".course-neighbours a")] == [
        "Previous 01 A lesson",
        "Next 03 A lesson",
    ]
    assert addresses(second, ".course-ways")[:3] == ["index.html", "GLOSSARY.html", "solutions/02_b.html"]
    assert addresses(page(edition, solutions), ".course-ways") == ["../index.html", "../GLOSSARY.html", "../02_b.html"]
    assert addresses(page(edition, folder / "GLOSSARY.md"), ".course-ways") == ["index.html"]


def test_contents_lead_to_the_headings(folder):
    text = "## 1. What `x < y` is\n\n```\n## a comment\n```\n\n### More"
    lesson = notebook_file(folder, "01_lesson", text=text)
    shown = page(Edition([lesson]), lesson)
    contents = shown.select(".course-contents li a")
    assert [link.get_text() for link in contents] == ["1. What x < y is", "More"]
    for link in contents:
        assert shown.find(id=link["href"][1:]).get_text().startswith(link.get_text())


def test_page_loads_nothing(folder):
    lesson = notebook_file(folder, "01_lesson", "1 + 1", text="Both < and $x$ stay as they are.")
    shown = page(Edition([lesson]), lesson)
    assert not shown.select("script[src], link[href], iframe, img[src]")


def test_descriptions_of_pictures_are_kept(folder):
    alt = 'Two "dots" & a line'
    picture = new_output("display_data", {"image/png": "cG5n"}, metadata={"image/png": {"alt": alt}})
    path = folder / "01_lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(outputs=[picture])]), path)
    assert [image["alt"] for image in page(Edition([path]), path).find_all("img")] == [alt]


def test_corner_of_a_table_is_no_heading(folder):
    table = new_output("display_data", {"text/html": '<table><tr><th class="a"></th><th>A</th></tr></table>'})
    path = folder / "01_lesson.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(outputs=[table])]), path)
    shown = page(Edition([path]), path)
    assert [heading.get_text() for heading in shown.find_all("th")] == ["A"]
    assert shown.find("td", class_="a")


def test_title_falls_back_to_the_file_name(tmp_path):
    notebook = new_notebook(cells=[new_markdown_cell("## Part")])
    assert title(notebook, tmp_path / "03_api.ipynb") == "03_api"


def test_short_title_leaves_out_the_number(tmp_path):
    cells = [new_markdown_cell("# Lesson 04: debugging: a start")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "04_debug.ipynb")
    assert short_title(tmp_path / "04_debug.ipynb") == "Debugging: a start"
    (tmp_path / "05_broken.ipynb").write_text("{")
    assert short_title(tmp_path / "05_broken.ipynb") == "05_broken"
