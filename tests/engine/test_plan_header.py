import pytest
from small_models import options

from tutorial_utils import engine
from tutorial_utils.base.errors import PlanError
from tutorial_utils.engine import plan_header


@pytest.fixture(scope="module")
def built(fp32_model):
    pytest.importorskip("tensorrt_rtx")
    return engine.build(fp32_model, options())


def test_header_of_a_plan(built):
    header = plan_header.read(built.plan)
    assert header.version == built.report.version
    assert header.plan_bytes == len(built.plan)


def test_header_shows_a_plan_that_was_cut_short(built):
    assert plan_header.read(built.plan[:1000]).plan_bytes > 1000


@pytest.mark.parametrize("content", [b"", b"vtrt", b"ptrt" + bytes(60)], ids=["empty", "too short", "other magic"])
def test_no_plan(content):
    with pytest.raises(PlanError):
        plan_header.read(content)
