import sys

import pytest

from tutorial_utils.base import paths
from tutorial_utils.base.errors import CacheError


def test_cache_dir_is_created_below_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    assert paths.cache_dir("engines", "new") == tmp_path / "cache" / "engines" / "new"
    assert (tmp_path / "cache" / "engines" / "new").is_dir()


def test_the_cache_of_a_clone_is_the_same_with_make_and_without(tmp_path, monkeypatch):
    monkeypatch.delenv(paths.CACHE_VARIABLE)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert paths.cache_root().name == "tutorial_utils"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert paths.cache_root() == tmp_path / "build" / "cache"


def test_cache_dir_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(CacheError, match=f"file/engines can't be written to.*set {paths.CACHE_VARIABLE}"):
        paths.cache_dir("engines")


def test_cache_dir_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(paths.os, "access", lambda *_: False)  # permission bits don't stop root
    with pytest.raises(CacheError, match="can't be written to"):
        paths.cache_dir()


def test_replacing_writes_all_or_nothing(tmp_path):
    path = tmp_path / "model.onnx"
    with paths.replacing(path) as temporary:
        assert temporary.suffix == ".onnx"
        temporary.write_text("new")
        assert not path.exists(), "the file must not be seen before it is whole"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "old"])
def test_replacing_leaves_what_was_there_after_an_error(before, tmp_path):
    path = tmp_path / "model.onnx"
    if before is not None:
        path.write_text(before)

    def write_half():
        with paths.replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_half()
    assert {file: file.read_text() for file in tmp_path.iterdir()} == ({} if before is None else {path: before})
