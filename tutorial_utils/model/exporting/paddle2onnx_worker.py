"""Export a Paddle model in a process of its own: paddle2onnx aborts its process on an unsupported operator.

Usage: ``python -m tutorial_utils.model.exporting.paddle2onnx_worker MODEL PARAMS OUT.onnx OPSET [SAMPLES.npz]``

With SAMPLES, Paddle's own outputs are written there for `export` to compare: for the inputs that the file holds
already, or for random ones.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx

from tutorial_utils.base.errors import CourseError
from tutorial_utils.model import export, onnx_file, paddle_program
from tutorial_utils.model.exporting import export_samples, legacy_export, paddle2onnx_errors, paddle2onnx_input
from tutorial_utils.model.quiet_paddle import paddle


def main(model_path: str, params_path: str, onnx_path: str, opset: str, samples_path: str | None = None) -> None:
    """Convert a static Paddle model to ONNX, and write sample inputs and outputs.

    Raises:
        ModelFileError: Paddle itself can't load the model; paddle2onnx might convert it to nonsense.
        ExportError: The result is not valid ONNX, or can't be written, or Paddle refuses the samples.
        InputError: The samples don't fit the model.
    """
    params_path = paddle_program.existing(params_path)
    config = paddle.inference.Config(model_path, params_path)
    # oneDNN would bring the weights of ResNet-50 into its own order: 1.6 s for a model that runs once, if at all.
    config.disable_mkldnn()
    predictor = paddle_program.create_predictor(config)
    program, readable = Path(model_path), Path(onnx_path).with_name("program.json")
    if program.suffix == ".json":
        paddle2onnx_input.write(program, readable)
    converted = Path(onnx_path).with_name(legacy_export.CONVERTED)
    if converted.exists():
        content = converted.read_bytes()
    else:
        content = _convert(readable if readable.exists() else program, params_path, int(opset))
    model = simplify(onnx.load_from_string(content))
    onnx_file.save(model, onnx_path)
    if samples_path is not None:
        given = dict(np.load(samples_path)) if os.path.exists(samples_path) else None
        np.savez(samples_path, **export_samples.of_paddle(predictor, model, program, given))


def _convert(program: Path, params_path: str, opset: int) -> bytes:
    import paddle2onnx  # it imports Paddle too, and must find it quiet

    listed = paddle2onnx.paddle2onnx_cpp2py_export.get_all_supported_operators_pir()
    print(paddle2onnx_errors.NOT_LISTED + ", ".join(paddle2onnx_errors.not_listed(program, listed)), flush=True)
    return paddle2onnx.export(
        str(program), params_path, opset_version=opset, auto_upgrade_opset=False,
        enable_onnx_checker=False,  # `onnx_file.save` checks the model that it writes
        optimize_tool="None",  # the default would install packages with pip while it runs
    )  # fmt: skip


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the batch dimension and fold constants, which make initializers of the Constant nodes of the weights.

    paddle2onnx gives every dynamic dimension a name of its own. Dimensions of one name must be equal for TensorRT, and
    those of several inputs need not be.
    """
    if len(model.graph.input) == 1:
        for value in (*model.graph.input, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].dim_value:
                dims[0].dim_param = "batch"
    from polygraphy.backend.onnx import fold_constants

    # ONNX Runtime's inference, taken where sympy happens to be installed, is wrong for some models.
    model = fold_constants(model, allow_onnxruntime_shape_inference=False)
    del model.graph.value_info[:]  # they would be wrong for who gives the input another size
    return model


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CourseError as error:
        print(json.dumps([type(error).__name__, error.cause, error.remedy]), file=sys.stderr)
        sys.exit(export.WORKER_COURSE_ERROR)
    os._exit(0)  # all is written, and Paddle would take half a second to take itself apart
