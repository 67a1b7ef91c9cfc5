"""Files of the cache are used where they are as they were sealed, and made again where they aren't."""

from pathlib import Path

import pytest

from tutorial_utils.base import sealed_files


@pytest.fixture
def filled(tmp_path):
    """Fill two files, and tell whether they had to be made."""

    def fill() -> bool:
        with sealed_files.filling([tmp_path / "a.onnx", tmp_path / "b.onnx"], tmp_path / "lock") as missing:
            for name in ("a.onnx", "b.onnx") if missing else ():
                (tmp_path / name).write_text(f"whole {name}")
        return missing

    return fill


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def altered(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_files_are_made_once(filled):
    assert [filled(), filled()] == [True, False]


@pytest.mark.parametrize("damage", [emptied, cut_short, altered, a_folder])
def test_a_damaged_file_is_made_again_with_a_warning(filled, damage, tmp_path):
    filled()
    damage(tmp_path / "b.onnx")
    with pytest.warns(UserWarning, match=r"cached file b\.onnx is damaged and is made again"):
        assert filled()
    assert (tmp_path / "b.onnx").read_text() == "whole b.onnx"
    assert not filled()


def test_what_an_interruption_left_is_made_again(tmp_path, filled, recwarn):
    def interrupted():
        with sealed_files.filling([tmp_path / "a.onnx", tmp_path / "b.onnx"], tmp_path / "lock"):
            (tmp_path / "a.onnx").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert filled()
    assert (tmp_path / "a.onnx").read_text() == "whole a.onnx"
    assert not recwarn
