import nbformat
import pytest
from bs4 import BeautifulSoup
from notebook_files import notebook_file

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


def test_course_is_written_with_a_front_page(tmp_path, capsys):
    lesson = notebook_file(tmp_path, "01_lesson", "from pathlib import Path", SHOW_ORIGIN, "print(Path.cwd().name)")
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "99_removed_lesson.html").write_text("old")

    index = course.write_course([lesson], pages)

    assert sorted(page.name for page in pages.iterdir()) == ["01_lesson.html", "index.html"]
    assert tmp_path.name in (pages / "01_lesson.html").read_text(encoding="utf-8")  # the kernel ran in its folder
    text = index.read_text(encoding="utf-8")
    assert '<a href="01_lesson.html">01 A lesson</a>' in text
    assert "about 1 min</span>" in text  # of reading, as `budget` counts it
    assert text.count("Measured on NVIDIA H100. Why not live: No GPU.") == 1
    assert "01_lesson: cell 2 of 3, " in capsys.readouterr().out


def test_solutions_and_documents_have_pages(tmp_path):
    lessons = tmp_path / "notebooks"
    (lessons / "solutions").mkdir(parents=True)
    lesson = notebook_file(lessons, "01_lesson")
    notebook_file(lessons / "solutions", "01_lesson", "raise SystemExit  # never executed for the page")
    (lessons / "GLOSSARY.md").write_text("# Glossary")
    (tmp_path / "TROUBLESHOOTING.md").write_text("# Troubleshooting")
    index = course.write_course([lesson], tmp_path / "out")
    links = [link["href"] for link in BeautifulSoup(index.read_text(encoding="utf-8"), "html.parser").select("a")]
    assert links == ["GLOSSARY.html", "TROUBLESHOOTING.html", "01_lesson.html", "solutions/01_lesson.html"]
    assert "never executed" in (tmp_path / "out" / links[-1]).read_text(encoding="utf-8")
    assert all((tmp_path / "out" / link).exists() for link in links)


def test_images_of_the_text_lie_beside_the_pages_and_details_stay_folded(tmp_path):
    text = "![A road](images/road.svg)\n\n<details><summary>Question</summary>\n\nThe answer.\n\n</details>"
    lesson = notebook_file(tmp_path, "01_lesson", text=text)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "road.svg").write_text("<svg/>")
    course.write_course([lesson], tmp_path / "out")
    page = BeautifulSoup((tmp_path / "out" / "01_lesson.html").read_text(encoding="utf-8"), "html.parser")
    assert (tmp_path / "out" / page.find(alt="A road")["src"]).read_text() == "<svg/>"
    assert "The answer." in page.find("details").get_text()


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


def test_front_page_counts_and_escapes():
    lessons = [
        Lesson("A & B", "a.html", 70, 90, [LIVE, RECORDED]),
        Lesson("C", "c.html", 2, 1, [], solutions="solutions/c.html"),
    ]
    page = front_page(lessons, MACHINE, "2026-01-02", [("GLOSSARY.html", "Words")])
    assert "2 lessons, about 1 h 12 min to read and do." in page
    assert "They ran in 1.5 min on this machine: 1 result live, 1 recording." in page
    assert "A &lt;CPU&gt;, 2 cores, no NVIDIA GPU, Linux, Python 3.11.7, paddle 3.3.1" in page
    assert "A &amp; B" in page
    assert "<summary>1 result live, 1 recording</summary>" in page
    assert '<a href="solutions/c.html">' in page
    assert '<a href="GLOSSARY.html">Words</a>' in page
    assert "about 1 h 10 min</span>" in page
    assert "Latency &lt;ms&gt;" in page
    assert "http" not in page  # needs nothing from the network


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (42.4, "42 s"), (59.6, "1.0 min"), (210, "3.5 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("minutes", "text"), [(0, "1 min"), (24.6, "25 min"), (59.7, "1 h"), (92, "1 h 32 min")])
def test_reading_time(minutes, text):
    assert reading_time(minutes) == text
