"""Paddle's way to TensorRT's libraries, with a fake wheel: empty libraries in a module named `tensorrt_libs`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tutorial_utils.base.errors import BackendUnavailableError
from tutorial_utils.machine import tensorrt_libraries

SCRIPTS = Path(__file__).parents[2] / "conda"
WHEEL = (
    "libnvinfer.so.10",
    "libnvinfer_plugin.so.10",
    "libnvonnxparser.so.10",
    "libnvinfer_builder_resource.so.10.5.0",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The library folder of a fake wheel that this process, and Python processes that it starts, find."""
    folder = tmp_path / "site-packages" / "tensorrt_libs"
    folder.mkdir(parents=True)
    for name in ("__init__.py", *WHEEL):
        (folder / name).touch()
    monkeypatch.syspath_prepend(folder.parent)
    return folder


def links(folder):
    return {path.name: path.readlink().name for path in folder.iterdir() if path.is_symlink()}


EXPECTED = {"libnvinfer.so": "libnvinfer.so.10", "libnvinfer_plugin.so": "libnvinfer_plugin.so.10"}


def test_folder_is_found_without_importing_it(folder):
    assert tensorrt_libraries.libraries_folder() == folder
    assert "tensorrt_libs" not in sys.modules


def test_links_are_made_once(folder):
    assert tensorrt_libraries.link_unversioned(folder) == [folder / name for name in EXPECTED]
    assert links(folder) == EXPECTED
    assert tensorrt_libraries.link_unversioned(folder) == []
    assert tensorrt_libraries.missing_links(folder) == []


def test_link_to_a_version_that_is_gone_is_replaced(folder):
    (folder / "libnvinfer.so").symlink_to("libnvinfer.so.8")
    assert tensorrt_libraries.missing_links(folder) == [folder / name for name in EXPECTED]
    tensorrt_libraries.link_unversioned(folder)
    assert links(folder) == EXPECTED


def test_link_that_works_stays(folder):
    (folder / "libnvinfer.so").symlink_to("libnvonnxparser.so.10")
    assert tensorrt_libraries.link_unversioned(folder) == [folder / "libnvinfer_plugin.so"]
    assert links(folder)["libnvinfer.so"] == "libnvonnxparser.so.10"


def test_folder_that_cannot_be_written_to(folder, monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(BackendUnavailableError, match=r"can't be written to: Permission denied.*as the owner"):
        tensorrt_libraries.link_unversioned(folder)
    assert tensorrt_libraries.main() == 0, "the loader path is right all the same"
    assert capsys.readouterr().out == f"{folder}\n"


def test_without_tensorrt(monkeypatch, capsys):
    monkeypatch.setattr(tensorrt_libraries, "find_spec", lambda name: None)
    assert tensorrt_libraries.main() == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "tensorrt-cu12" in shown.err


# --- conda's activation ----------------------------------------------------------------------------------------------

SHOW = 'echo "$LD_LIBRARY_PATH|${TENSORRT_LIBRARIES-unset}"'


@pytest.fixture
def conda(folder, tmp_path):
    """Run shell lines as in a conda environment whose Python has the fake wheel."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    path = f"{folder.parent}:{Path(tensorrt_libraries.__file__).parents[2]}"
    python = prefix / "bin" / "python"  # as in an environment, both are found in isolated mode (-I) too
    code = f"import runpy, sys; sys.path[:0] = {path.split(':')!r}; runpy.run_module(sys.argv[1], run_name='__main__')"
    python.write_text(f'#!/bin/sh\n[ "$1 $2" = "-I -m" ] && exec "{sys.executable}" -c "{code}" "$3"\n')
    python.chmod(0o755)

    def run(shell, *lines, **variables):
        environment = {"PATH": os.environ["PATH"], "CONDA_PREFIX": str(prefix), **variables}
        script = "\n".join(["set -eu", *lines])
        done = subprocess.run([shell, "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    return run


@pytest.mark.parametrize("shell", [name for name in ("sh", "bash", "zsh") if shutil.which(name)])
@pytest.mark.parametrize("before", [None, "/opt/lib:/usr/lib"])
def test_activation_and_back(shell, before, conda, folder):
    activate, deactivate = (f". {SCRIPTS}/{name}.d/tensorrt_libraries.sh" for name in ("activate", "deactivate"))
    variables = {"LD_LIBRARY_PATH": before} if before else {}
    show = SHOW.replace("$LD_LIBRARY_PATH", "${LD_LIBRARY_PATH-unset}")
    active, after = conda(shell, activate, show, deactivate, show, **variables)
    assert active == f"{folder}{':' + before if before else ''}|{folder}"
    assert after == f"{before or 'unset'}|unset"
    assert links(folder) == EXPECTED


def test_activation_without_tensorrt_changes_nothing(conda, folder):
    shutil.rmtree(folder)
    scripts = [f". {SCRIPTS}/{name}.d/tensorrt_libraries.sh" for name in ("activate", "deactivate")]
    assert conda("sh", *scripts, SHOW, LD_LIBRARY_PATH="/opt/lib") == ["/opt/lib|unset"]


def test_loader_finds_the_links_in_an_activated_environment(conda, folder):
    """What Paddle does: dlopen by name alone. An empty file is found and then refused as no library."""
    code = "import ctypes; ctypes.CDLL('libnvinfer_plugin.so')"
    call = f'{sys.executable} -c "{code}" 2>&1 | tail -1 | tr " " "_" || true'
    (before,) = conda("sh", call)
    (after,) = conda("sh", f". {SCRIPTS}/activate.d/tensorrt_libraries.sh", call)
    assert "No_such_file" in before
    assert f"{folder}/libnvinfer_plugin.so:_file_too_short" in after
