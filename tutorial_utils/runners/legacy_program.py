"""Save a network in Paddle's older static form, ``.pdmodel``, which the legacy Paddle-TRT and older tools read.

Paddle 3 decides when it is imported which form it writes, by the environment variable FLAGS_enable_pir_api. So this is
done in a process of its own: ``python -m tutorial_utils.runners.legacy_program NETWORK WEIGHTS PREFIX SHAPE CLASSES``.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tutorial_utils.base.errors import CourseError, ExportError

if TYPE_CHECKING:
    from paddle.nn import Layer

    from tutorial_utils.model.classifier import SavedModel


def save(
    model: "Layer",
    network: str,
    path_prefix: str | Path,
    input_shape: tuple[int | None, ...] = (None, 3, 32, 32),
    num_classes: int = 10,
) -> "SavedModel":
    """Save a network as ``.pdmodel`` and ``.pdiparams``.

    Args:
        model: The network; its weights are taken.
        network: Its name for ``classifier.build``, with which the other process builds it again.
        path_prefix: Where to, without the endings.
        input_shape: Shape of the input ``x``; None is a dimension that may vary.
        num_classes: Number of its classes.

    Returns:
        The paths of the two files.

    Raises:
        ExportError: The weights are not those of such a network, or Paddle wrote no ``.pdmodel``.
    """
    from tutorial_utils.model import classifier
    from tutorial_utils.model.classifier import SavedModel

    target = SavedModel(Path(f"{path_prefix}.pdmodel"), Path(f"{path_prefix}.pdiparams"))
    folder = target.model_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    shape = ",".join(str(-1 if size is None else size) for size in input_shape)
    with tempfile.TemporaryDirectory(prefix=".save-", dir=folder) as temporary:
        weights, written = Path(temporary) / "weights.npz", Path(temporary) / "model"
        classifier.save_weights(model, weights)
        arguments = [network, weights, written, shape, num_classes]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tutorial_utils.runners.legacy_program", *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            env={
                **os.environ,
                "FLAGS_enable_pir_api": "0",
                "GLOG_minloglevel": "3",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path]),
            },
        )
        if done.returncode or not written.with_suffix(".pdmodel").exists():
            last = (done.stderr.strip().splitlines() or ["it wrote no .pdmodel"])[-1].rstrip(".")
            raise ExportError(
                f"Paddle could not save {network} in the legacy form: {last}.",
                "Give the name of the network that the weights belong to, and Paddle 3.",
            )
        target.model_path.unlink(missing_ok=True)  # the program is moved last: a pair always belongs together
        written.with_suffix(".pdiparams").replace(target.params_path)
        written.with_suffix(".pdmodel").replace(target.model_path)
    return target


def _main(network: str, weights: str, prefix: str, shape: str, num_classes: str) -> None:
    """Build, fill and save the network; FLAGS_enable_pir_api=0 is set already."""
    from tutorial_utils.model import classifier
    from tutorial_utils.model.quiet_paddle import paddle

    try:
        model = classifier.build(network, int(num_classes))
        classifier.load_weights(model, Path(weights))
    except CourseError as error:
        sys.exit(error.cause)
    model.eval()
    spec = paddle.static.InputSpec([int(size) for size in shape.split(",")], "float32", name=classifier.INPUT_NAME)
    paddle.jit.save(model, prefix, input_spec=[spec])


if __name__ == "__main__":
    _main(*sys.argv[1:])
