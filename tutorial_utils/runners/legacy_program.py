"""The course's networks in Paddle's older static form, ``.pdmodel``, which the legacy Paddle-TRT and older tools read.

Paddle 3 decides when it is imported which form it writes, by the environment variable FLAGS_enable_pir_api; Paddle 2
knows no other form. So they are saved in a process of its own, on the CPU. Lesson 02a saves one by hand.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from tutorial_utils.base import child_process, paths, sealed_files
from tutorial_utils.model import paddle_quantization

if TYPE_CHECKING:
    from tutorial_utils.model.classifier import SavedModel


def untrained(network: str, seed: int = 0) -> "SavedModel":
    """Return a network with its random weights as ``.pdmodel`` for images of any size, made once and kept in the cache.

    The weights are those of the same network elsewhere in the course: Paddle 2.6 and 3.3 draw the same ones.
    """
    from tutorial_utils.model.classifier import SavedModel, saving
    from tutorial_utils.model.quiet_paddle import paddle

    folder = paths.cache_dir("models", f"{network}-legacy-{seed}-{paddle.__version__}")
    target = SavedModel(folder / "model.pdmodel", folder / "model.pdiparams")
    with sealed_files.filling(vars(target).values(), folder / "lock") as missing:
        if missing:
            with saving(target) as written:
                child_process.run(_write, network, seed, written)
    return target


def quantized(network: str, images: np.ndarray) -> "SavedModel":
    """Return `untrained` quantized offline with images, float32 ``[N, 3, H, W]``, made once and kept in the cache.

    Raises:
        CourseError: Those of `paddle_quantization.quantize`.
    """
    saved = untrained(network)
    name = f"int8-{blake3(images.tobytes()).hexdigest(length=8)}"
    target = type(saved)(
        saved.model_path.with_name(f"{name}.pdmodel"), saved.params_path.with_name(f"{name}.pdiparams")
    )
    with sealed_files.filling(vars(target).values(), saved.model_path.with_name("lock")) as missing:
        if missing:
            paddle_quantization.quantize(saved.model_path, saved.params_path, images, target.model_path.with_suffix(""))
    return target


def _write(network: str, seed: int, prefix: Path) -> None:
    """Build and save the network, in a process that hasn't imported Paddle yet."""
    os.environ.update(FLAGS_enable_pir_api="0")
    from tutorial_utils.model import classifier
    from tutorial_utils.model.quiet_paddle import paddle

    paddle.set_device("cpu")  # Paddle may hold no kernels for the GPU
    model = classifier.build(network, seed=seed)
    model.eval()
    spec = paddle.static.InputSpec([-1, 3, -1, -1], "float32", name=classifier.INPUT_NAME)
    paddle.jit.save(model, str(prefix), input_spec=[spec])
