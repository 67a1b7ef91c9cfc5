import html.parser

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorial_utils.authoring import course, notebook_form
from tutorial_utils.authoring.course_page import Lesson, duration, front_page, reading_time
from tutorial_utils.base.errors import LessonError
from tutorial_utils.measure.recordings import Origin

MACHINE = {
    "gpu": None,
    "cpu": "A <CPU>",
    "cores": 2,
    "os": "Linux",
    "python": "3.11.7",
    "libraries": {"paddle": "3.3.1"},
}
LIVE = Origin("live", "Engine of a small net")
RECORDED = Origin("recording", "Latency <ms>", "measured on NVIDIA H100", "This machine has no NVIDIA GPU.")
SHOW_ORIGIN = """\
from IPython.display import display
from tutorial_utils.measure.recordings import Origin
display(Origin("recording", "Latency", "measured on NVIDIA H100", "No GPU."))
Origin("recording", "Latency", "measured on NVIDIA H100", "No GPU.")
"""


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    class Probe:
        def machine(self):
            return MACHINE

    monkeypatch.setattr(course, "probe", Probe)


def notebook_file(folder, name, *sources, text="intro"):
    path = folder / f"{name}.ipynb"
    cells = [new_markdown_cell(f"{text}\n\n# A lesson"), *(new_code_cell(source) for source in sources)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_course_is_written_with_a_front_page(tmp_path, capsys):
    lesson = notebook_file(tmp_path, "01_lesson", "from pathlib import Path", SHOW_ORIGIN, "print(Path.cwd().name)")
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "99_removed_lesson.html").write_text("old")

    index = course.write_course([lesson], pages)

    assert sorted(page.name for page in pages.iterdir()) == ["01_lesson.html", "index.html"]
    assert tmp_path.name in (pages / "01_lesson.html").read_text(encoding="utf-8")  # the kernel ran in its folder
    text = index.read_text(encoding="utf-8")
    assert '<a href="01_lesson.html">A lesson</a>' in text
    assert "about 1 min</span>" in text  # of reading, as `budget` counts it
    assert text.count("Measured on NVIDIA H100. Why not live: No GPU.") == 1
    assert "01_lesson: cell 2 of 3, " in capsys.readouterr().out


def test_solutions_have_a_page_that_the_lesson_links_to(tmp_path):
    lesson = notebook_file(tmp_path, "01_lesson", text="[solution](solutions/01_lesson.ipynb)")
    (tmp_path / "solutions").mkdir()
    notebook_file(tmp_path / "solutions", "01_lesson", "raise SystemExit  # never executed for the page")
    course.write_course([lesson], tmp_path / "out")
    assert 'href="solutions/01_lesson.html"' in (tmp_path / "out" / "01_lesson.html").read_text(encoding="utf-8")
    page = (tmp_path / "out" / "solutions" / "01_lesson.html").read_text(encoding="utf-8")
    assert "never executed" in page
    assert 'href="../index.html"' in page


def test_images_of_the_text_lie_beside_the_pages_and_details_stay_folded(tmp_path):
    text = "![A road](images/road.svg)\n\n<details><summary>Question</summary>\n\nThe answer.\n\n</details>"
    lesson = notebook_file(tmp_path, "01_lesson", text=text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "road.svg").write_text("<svg/>")
    course.write_course([lesson], tmp_path / "out")
    page = BeautifulSoup((tmp_path / "out" / "01_lesson.html").read_text(encoding="utf-8"), "html.parser")
    assert (tmp_path / "out" / page.find(alt="A road")["src"]).read_text() == "<svg/>"
    assert "The answer." in page.find("details").get_text()


def links(page):
    return [link["href"] for link in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select("a[href]")]


def test_links_between_lessons_and_to_the_glossary_lead_to_their_pages(tmp_path):
    text = (
        "[a](02_next.ipynb#A-lesson) [b](GLOSSARY.md#plan) [c](03_missing.ipynb) [d](README.md) [e](https://x.org/y.md)"
    )
    first = notebook_file(tmp_path, "01_lesson", text=text)
    second = notebook_file(tmp_path, "02_next", text="`[f](01_lesson.ipynb)`")
    (tmp_path / "GLOSSARY.md").write_text("# Glossary\n\n### <a id='plan'></a>Plan\n\nSee [g](01_lesson.ipynb).")
    (tmp_path / "README.md").touch()
    (tmp_path / "solutions").mkdir()
    notebook_file(tmp_path / "solutions", "01_lesson", text="[h](../GLOSSARY.md#plan) [i](../02_next.ipynb)")
    out = tmp_path / "out"
    course.write_course([first, second], out)

    to_all = ["index.html", "GLOSSARY.html"]
    own = "#A-lesson"
    assert links(out / "01_lesson.html") == [
        *to_all,
        *("02_next.html#A-lesson", "GLOSSARY.html#plan", "03_missing.ipynb", "README.md", "https://x.org/y.md"),
        own,
    ]
    assert links(out / "02_next.html") == [*to_all, own]
    assert [link for link in links(out / "GLOSSARY.html") if not link.startswith("#")] == [
        "index.html",
        "01_lesson.html",
    ]
    assert 'id="plan"' in (out / "GLOSSARY.html").read_text(encoding="utf-8").replace("'", '"')
    solution = links(out / "solutions" / "01_lesson.html")
    assert solution == ["../index.html", "../GLOSSARY.html", "../GLOSSARY.html#plan", "../02_next.html", own]
    assert links(out / "index.html") == ["01_lesson.html", "02_next.html", "GLOSSARY.html"]


def test_lesson_page_waits_for_no_script_from_the_network(tmp_path):
    lesson = notebook_file(tmp_path, "01_lesson", "1 + 1")
    page = course.write_course([lesson], tmp_path / "pages").with_name("01_lesson.html")

    class Scripts(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "script" and "src" in dict(attributes):
                assert "defer" in dict(attributes)

    Scripts().feed(page.read_text(encoding="utf-8"))


def test_lesson_page_keeps_the_descriptions_of_pictures(tmp_path):
    picture = """from IPython.display import Image; Image(b"png", format="png", alt='Two "dots" & a line')"""
    lesson = notebook_file(tmp_path, "01_lesson", picture)
    page = course.write_course([lesson], tmp_path / "pages").with_name("01_lesson.html").read_text()
    assert [img["alt"] for img in BeautifulSoup(page, "html.parser").find_all("img")] == ['Two "dots" & a line']


def test_failing_lesson_is_named_with_cell_and_error(tmp_path, capsys):
    lesson = notebook_file(tmp_path, "01_lesson", "1 + 1", "# why\nraise ValueError('too\\nbad')")
    with pytest.raises(LessonError) as caught:
        course.write_course([lesson], tmp_path / "pages")
    assert caught.value.cause == f"{lesson} failed in cell 3 (`# why`): ValueError: too"
    assert list((tmp_path / "pages").iterdir()) == []

    assert course.main([str(lesson), "--in-place"]) == 1
    assert "failed in cell 3" in capsys.readouterr().err
    assert nbformat.read(lesson, as_version=4).cells[1].execution_count is None  # the file is as it was


def test_dead_kernel_is_said(tmp_path):
    lesson = notebook_file(tmp_path, "01_lesson", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(LessonError, match=r"The kernel of .* died in cell 2 \(`import os, signal`\)"):
        course.execute(lesson)


def test_in_place_execution_leaves_the_committed_form(tmp_path):
    lesson = notebook_file(tmp_path, "01_lesson", "print(1, flush=True)\nprint(2)", "import tutorial_utils")
    assert course.main(["--in-place", str(lesson)]) == 0
    assert notebook_form.violations(lesson) == []
    assert nbformat.read(lesson, as_version=4).cells[1].outputs[0].text == "1\n2\n"


def test_folder_without_lessons_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert course.main([]) == 1
    assert "There are no notebooks in" in capsys.readouterr().err


def test_title_falls_back_to_the_file_name(tmp_path):
    assert course.title(new_notebook(cells=[new_markdown_cell("## Part")]), tmp_path / "03_api.ipynb") == "03_api"


def test_front_page_counts_and_escapes():
    page = front_page(
        [Lesson("A & B", "a.html", 70, 90, [LIVE, RECORDED]), Lesson("C", "c.html", 2, 1, [])], MACHINE, "2026-01-02"
    )
    assert "2 lessons, about 1 h 12 min to read and do." in page
    assert "They ran in 1.5 min on this machine: 1 result live, 1 recording." in page
    assert "A &lt;CPU&gt;, 2 cores, no NVIDIA GPU, Linux, Python 3.11.7, paddle 3.3.1" in page
    assert "A &amp; B" in page
    assert "about 1 h 10 min</span>" in page
    assert "Latency &lt;ms&gt;" in page
    assert "http" not in page  # needs nothing from the network


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (42.4, "42 s"), (59.6, "1.0 min"), (210, "3.5 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("minutes", "text"), [(0, "1 min"), (24.6, "25 min"), (59.7, "1 h"), (92, "1 h 32 min")])
def test_reading_time(minutes, text):
    assert reading_time(minutes) == text
