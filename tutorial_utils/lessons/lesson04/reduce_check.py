"""Lesson 04, the check that `polygraphy debug reduce` repeats: is every tensor of a part of a network finite in FP16?

``python -m tutorial_utils.lessons.lesson04.reduce_check part.onnx tensors.npz`` ends with 1 and says which are not.
"""

import sys
from pathlib import Path

import numpy as np
import onnx

from tutorial_utils.debug import tensor_errors


def not_finite(model_path: str | Path, tensors_path: str | Path) -> list[str]:
    """Run an FP32 model with its weights and tensors rounded to FP16.

    A part that is fed with what FP16 can't hold is not judged: the failure lies before it.

    Args:
        model_path: The model, or a part of one that begins anywhere.
        tensors_path: An ``.npz`` file with the value that each input of the part has in the whole FP32 model, by name.

    Returns:
        The tensors with Inf or NaN, in the order of computation.
    """
    inputs = [value.name for value in onnx.load(model_path).graph.input]
    with np.load(tensors_path) as tensors:  # reads only the arrays that are asked for
        feeds = {name: tensors[name] for name in inputs}
    if any(np.abs(values).max() > np.finfo(np.float16).max for values in feeds.values()):
        return []
    found = tensor_errors.all_outputs(model_path, feeds, stored_as="fp16")
    return [name for name, values in found.items() if not np.isfinite(values).all()]


def main() -> int:
    """Print the first tensors that aren't finite, and return 1 where there are any."""
    bad = not_finite(*sys.argv[1:])
    print(f"Inf or NaN in {', '.join(bad[:3])}" if bad else "all finite")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
