"""Ordinary networks come out of the export as they went in, or are refused with the reason; `zoo` lists them."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("paddle2onnx")
from model import zoo

from tutorial_utils.base import child_process
from tutorial_utils.base.errors import CourseError

ROUNDING = 1e-5  # of the largest value


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return child_process.run(zoo.save_all, tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def exports(saved, tmp_path_factory):
    """What came of each export. Two processes share the networks."""
    folder = tmp_path_factory.mktemp("exports")

    def export_every_second(first):
        mine = dict(list(saved.items())[first::2])
        log = folder / f"log{first}"
        return child_process.run_with_log(log, {"GLOG_minloglevel": "3"}, zoo.export_all, mine, folder)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(export_every_second, range(2))
    return first | second


@pytest.fixture(scope="module")
def in_paddle(saved):
    """Fails as a whole where a network ends its process."""
    return child_process.run(zoo.run_in_paddle, saved)


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_export(name, exports):
    refused = zoo.NETWORKS[name].refused
    if refused is None:
        assert not isinstance(exports[name], CourseError), str(exports[name])
        assert exports[name] <= ROUNDING
    else:
        assert isinstance(exports[name], CourseError), "it is exported now: drop `refused`, and what refused it"
        assert re.search(refused, str(exports[name]))


@pytest.mark.parametrize("name", [name for name, entry in zoo.NETWORKS.items() if entry.remedied])
def test_the_remedy_of_a_refusal_works(name):
    assert zoo.NETWORKS[zoo.NETWORKS[name].remedied].refused is None, "and test_export shows that it is exported"


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_paddle_runner(name, in_paddle):
    assert in_paddle[name] <= ROUNDING


def test_refusals_are_few():
    assert sum(entry.refused is not None for entry in zoo.NETWORKS.values()) <= len(zoo.NETWORKS) * 6 // 40
