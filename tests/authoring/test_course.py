import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from notebook_files import notebook_file

from tutorial_utils.authoring import course, notebook_form
from tutorial_utils.authoring.course_page import Lesson, duration, front_page, reading_time
from tutorial_utils.base import paths
from tutorial_utils.base.errors import LessonError
from tutorial_utils.measure.recordings import Origin

ROOT = Path(__file__).parents[2]
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
    assert '<a href="01_lesson.html">A lesson</a>' in text
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


def test_failing_lesson_is_named_and_the_others_are_written(tmp_path, capsys):
    files = [
        notebook_file(tmp_path, "01_first", "1 + 1"),
        notebook_file(tmp_path, "02_fails", "1 + 1", "# why\nraise ValueError('too\\nbad')"),
        notebook_file(tmp_path, "03_last", "1 + 1"),
    ]
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "02_fails.html").write_text("of an earlier run")
    (pages / "99_removed.html").write_text("old")
    with pytest.raises(LessonError, match=r"1 of 3 lessons failed: 02_fails\. .*All other pages are written"):
        course.write_course(files, pages)
    said = capsys.readouterr().err
    assert f"{files[1]} failed in cell 3 (`# why`): ValueError: too" in said
    assert "Traceback" in said
    assert sorted(page.name for page in pages.iterdir()) == [
        "01_first.html",
        "02_fails.html",
        "03_last.html",
        "index.html",
    ]
    assert (pages / "02_fails.html").read_text() == "of an earlier run"
    index = (pages / "index.html").read_text(encoding="utf-8")
    assert "1 lesson failed." in index
    assert "its page is that of an earlier run: " in index
    assert "failed in cell 3 (`# why`): ValueError: too" in index

    assert course.main([str(files[1]), "--in-place"]) == 1
    assert "failed in cell 3" in capsys.readouterr().err
    assert nbformat.read(files[1], as_version=4).cells[1].execution_count is None  # the file is as it was


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    lesson = notebook_file(tmp_path, "01_lesson", "1 + 1")
    pages = tmp_path / "pages"
    index = course.write_course([lesson], pages)
    before = {path: path.read_bytes() for path in pages.iterdir()}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        LessonError, match=r"01_lesson.html can't be written: No space left on device\. .*Free some space"
    ):
        course.write_course([lesson], pages)
    assert {path: path.read_bytes() for path in index.parent.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_said_before_a_lesson_runs(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LessonError, match=r"file/pages can't be written: Not a directory"):
        course.write_course([notebook_file(tmp_path, "01_lesson", "1 + 1")], tmp_path / "file" / "pages")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_course_in_one_line(tmp_path, sent):
    lesson = notebook_file(
        tmp_path, "01_lesson", "1 + 1", "# long\nopen('runs', 'w').close(); import time; time.sleep(60)"
    )
    command = [sys.executable, "-m", "tutorial_utils.authoring.course", str(lesson)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TUTORIAL_UTILS_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "runs").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(sent)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == f"Stopped in {lesson}, cell 3 (`# long`). What was written before is whole.\n"
    assert list((tmp_path / "cache" / "runs").iterdir()) == []


def test_two_runs_have_folders_of_their_own(tmp_path, monkeypatch):
    """Lessons write files of fixed names: one run would cut short what another one reads."""
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    shared = paths.cache_dir("lesson04", "shrinking")
    (tmp_path / "cache" / "runs" / "killed").mkdir(parents=True)
    (tmp_path / "cache" / "runs" / "killed.lock").touch()
    with course.own_folders():
        first = paths.cache_dir("lesson04", "shrinking")
        one = os.environ.pop(paths.RUN_VARIABLE)
        with course.own_folders():
            second = paths.cache_dir("lesson04", "shrinking")
            assert first.exists()
            assert paths.cache_dir("engines") == tmp_path / "cache" / "engines"  # what is safe to share is shared
        os.environ[paths.RUN_VARIABLE] = one
        assert len({shared, first, second}) == 3
    assert list((tmp_path / "cache" / "runs").iterdir()) == []
    assert paths.cache_dir("lesson04", "shrinking") == shared


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
        Lesson("A & B", "a.html", 70, 90, [LIVE, RECORDED], part="01a", goals=["see", "do"]),
        Lesson("C", "c.html", 2, 1, solutions="solutions/c.html"),
    ]
    page = front_page(lessons, MACHINE, "2026-01-02", {"GLOSSARY.html": "Words"})
    assert "2 lessons, about 1 h 12 min to read and do." in page
    assert "They ran in 1.5 min on this machine: 1 result live, 1 recording." in page
    assert "A &lt;CPU&gt;, 2 cores, no NVIDIA GPU, Linux, Python 3.11.7, paddle 3.3.1" in page
    assert '<span class="part">01a</span> <a href="a.html">A &amp; B</a>' in page
    assert "You will see; do." in page
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
