"""The environment of `make`: made once, also by two at once, made anew where it is broken, and removed by `make clean`.

A script stands in for Python, which writes down what it is asked for; nothing is installed.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = r"""#!/bin/sh
# In .venv, it has pip only if the file .venv/pip is there.
case "$1 $2" in
  "-c import pip") test -e .venv/pip ;;
  "-c "*) ;;
  "--version "*) echo Python 3.11.7 ;;
  "-m venv") echo venv >> log; mkdir -p .venv/bin; cp "$0" .venv/bin/python; sleep 0.3; touch .venv/pip ;;
  *) echo "$*" >> log; echo "$HOME" > home ;;
esac
"""
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path):
    """A folder with the Makefile, in which `python` is the stand-in."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "python").write_text(PYTHON)
    (folder / "python").chmod(0o755)
    return folder


def start(folder: Path, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= changes
    command = ["make", *arguments, "PYTHON=./python"]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def make(folder: Path, *arguments: str, **changes: str) -> str:
    process = start(folder, *arguments, **changes)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    return said


def made(folder: Path) -> int:
    """Return how many environments were made."""
    return (folder / "log").read_text().splitlines().count("venv")


def without_pip(folder: Path) -> Path:
    (folder / ".venv" / "pip").unlink()  # killed while the environment was being made
    return folder


def without_interpreter(folder: Path) -> Path:
    (folder / ".venv" / "bin" / "python").unlink()
    (folder / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.11")
    return folder


def renamed(folder: Path) -> Path:
    return folder.rename(folder.with_name("renamed"))


def killed_at_once(folder: Path) -> Path:
    shutil.rmtree(folder / ".venv" / "bin")
    (folder / ".venv" / "installed").unlink()
    return folder


def test_the_environment_is_made_once(clone):
    assert "Making .venv with Python 3.11.7." in make(clone, "course")
    assert make(clone, "course") == ""
    assert made(clone) == 1
    log = (clone / "log").read_text()
    assert " install --no-compile -r requirements.txt" in log
    assert "compileall" not in log
    assert log.endswith("-m tutorial_utils.authoring.course\n" * 2)


@pytest.mark.parametrize("damage", [without_pip, without_interpreter, renamed, killed_at_once])
def test_a_broken_environment_is_made_anew(clone, damage):
    make(clone, "course")
    clone = damage(clone)
    said = make(clone, "course")
    assert "making it anew." in said
    assert "Installing requirements.txt into .venv" in said
    assert made(clone) == 2
    assert make(clone, "course") == ""


def test_a_broken_environment_of_somebody_else_is_left_alone(clone):
    (clone / ".venv" / "bin").mkdir(parents=True)
    (clone / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.11")
    process = start(clone, "course")
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Run `make clean`, then this again." in said
    assert (clone / ".venv" / "bin" / "python").is_symlink()
    make(clone, "clean")
    make(clone, "course")


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_of_two_at_once_one_makes_the_environment(clone):
    both = [start(clone, "course"), start(clone, "budget")]
    for process in both:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert made(clone) == 1


def test_clean_leaves_nothing_that_was_made(clone):
    before = set(clone.rglob("*"))
    make(clone, "course")
    (clone / "log").unlink()
    (clone / "home").unlink()
    for name in (".mypy_cache", "build/cache", "notebooks/.ipynb_checkpoints", "tutorial_utils/base/__pycache__"):
        (clone / name).mkdir(parents=True)
    make(clone, "clean")
    assert {path for path in clone.rglob("*") if path.is_file()} <= before
    assert not [path for path in clone.rglob("*") if path.name.startswith((".", "__"))]


def test_jupyterlab_runs_as_root_and_takes_options(clone):
    make(clone, "lab", "LAB=--ip=0.0.0.0")
    (call,) = [line for line in (clone / "log").read_text().splitlines() if "jupyterlab" in line]
    assert call.endswith("--ip=0.0.0.0")
    assert ("--allow-root" in call) == (os.getuid() == 0)
    assert "default_url=/lab/tree/notebooks/00_start_here.ipynb" in call


def test_a_home_that_cannot_be_written_is_replaced(clone, tmp_path):
    make(clone, "course", HOME=str(tmp_path))
    assert (clone / "home").read_text().strip() == str(tmp_path)
    make(clone, "course", HOME="/dev/null/home")
    assert (clone / "home").read_text().strip() == str(clone / "build" / "home")
    assert (clone / "build" / "home").is_dir()
