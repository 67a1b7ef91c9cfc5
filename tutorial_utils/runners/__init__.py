"""One calling convention for every backend: ``with Runner(...) as runner: outputs = runner.infer({"x": batch})``.

Import a runner from its own module (`runners.paddle`, `runners.onnx_runtime`, `runners.tensorrt`): each imports its
library, and a machine need not have them all.
"""

from tutorial_utils.runners.base import Runner, TensorSpec

__all__ = ["Runner", "TensorSpec"]
