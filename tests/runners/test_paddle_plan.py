"""Paddle's engine without Paddle: what is missing is said before a GPU is touched."""

from importlib.util import find_spec

import pytest
from small_models import images

from tutorial_utils.base.errors import BackendUnavailableError, PlanError
from tutorial_utils.runners import paddle_plan


@pytest.mark.parametrize("names", [[], ["trt_serialized_1", "trt_serialized_2"]])
def test_a_folder_of_no_engine_or_of_several(names, tmp_path):
    for name in names:
        (tmp_path / name).write_bytes(b"plan")
    with pytest.raises(PlanError, match=f"holds {len(names)} engines"), paddle_plan.opened(tmp_path, images(1)):
        pass


@pytest.mark.skipif(find_spec("pycuda") is not None, reason="PyCUDA is installed")
def test_without_pycuda(tmp_path):
    (tmp_path / "trt_serialized_1").write_bytes(b"plan")
    with pytest.raises(BackendUnavailableError, match="pycuda"), paddle_plan.opened(tmp_path, images(1)):
        pass
