"""The file of a timing cache. What TensorRT makes of one, test_data_centre asks on a GPU."""

import json
import os

import pytest

pytest.importorskip("tensorrt_rtx")
from tutorial_utils.engine.tensorrt import MessageLog  # imports TensorRT
from tutorial_utils.engine.timing_cache import TimingCache

HERE = "tensorrt 10.6.0 NVIDIA H100 9.0"


class Times:
    """Stands for TensorRT's cache: words instead of times."""

    def __init__(self, content):
        self.words = set(content.decode().split())

    def combine(self, other, ignore_mismatch):
        self.words |= other.words
        return True

    def serialize(self):
        return " ".join(sorted(self.words)).encode()


class Config:
    """Stands for the configuration of a build. It refuses times that begin with "refused"."""

    def create_timing_cache(self, content):
        return Times(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.cache = cache
        return "refused" not in cache.words


def build(folder, *kernels, identity=HERE, during=lambda: None):
    """Do what a build does with its timing cache; return the words that it found."""
    config = Config()
    cache = TimingCache(config, MessageLog(), folder, identity)
    cache.attach()
    found = set(config.cache.words)
    config.cache.words |= set(kernels)
    during()
    cache.save()
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "timing-tensorrt-10.6.0-NVIDIA-H100-9.0.cache"


def test_the_next_build_finds_the_times(tmp_path, path):
    assert build(tmp_path, "a", "b") == set()
    assert build(tmp_path, "b", "c") == {"a", "b"}
    assert build(tmp_path) == {"a", "b", "c"}
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix != ".lock") == [path.name]


def test_another_gpu_or_version_has_a_file_of_its_own(tmp_path):
    build(tmp_path, "a")
    for other in ("tensorrt 10.6.0 NVIDIA A10 8.6", "tensorrt 10.5.0 NVIDIA H100 9.0"):
        assert build(tmp_path, identity=other) == set()


def test_builds_at_the_same_time_lose_nothing(tmp_path):
    build(tmp_path, "a")
    assert build(tmp_path, "b", during=lambda: build(tmp_path, "c")) == {"a"}
    assert build(tmp_path) == {"a", "b", "c"}


def test_a_build_that_measured_nothing_writes_nothing(tmp_path, path):
    build(tmp_path, "a")
    os.utime(path, (1, 1))
    build(tmp_path)
    assert path.stat().st_mtime == 1


def with_other_head(content):
    head, _, times = content.partition(b"\n")
    return json.dumps(json.loads(head) | {"tensorrt": "tensorrt 10.6.0 NVIDIA A10 8.6"}).encode() + b"\n" + times


DAMAGE = {
    "cut short": (lambda content: content[:-1], "cut short or altered: its checksum is wrong"),
    "cut in its head": (lambda content: content[:20], "doesn't begin as one"),
    "empty": (lambda content: b"", "doesn't begin as one"),
    "no JSON object": (lambda content: b"[]\n", "doesn't begin as one"),
    "binary": (lambda content: b"\x80\xff" * 50, "doesn't begin as one"),
    "of another GPU": (
        with_other_head,
        "made for tensorrt 10.6.0 NVIDIA A10 8.6, and this is ",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_can_not_be_used_is_dropped_with_one_warning(damage, tmp_path, path):
    build(tmp_path, "a")
    change, says = DAMAGE[damage]
    path.write_bytes(change(path.read_bytes()))
    with pytest.warns(UserWarning, match=f"isn't used: .*{says}.*measures all kernels again") as caught:
        assert build(tmp_path, "b") == set()
    assert len(caught) == 1
    assert build(tmp_path) == {"b"}


def test_times_that_tensorrt_refuses(tmp_path):
    build(tmp_path, "refused")
    with pytest.warns(UserWarning, match="TensorRT refuses it: TensorRT gave no message"):
        build(tmp_path, "b")
    assert build(tmp_path) == {"b"}


def test_a_folder_that_can_not_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(UserWarning, match="can't be written: File exists"):
        build(tmp_path / "file", "a")
