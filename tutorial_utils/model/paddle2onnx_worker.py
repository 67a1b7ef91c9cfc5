"""Export a Paddle model in a process of its own: paddle2onnx aborts its process on an unsupported operator.

Usage: ``python -m tutorial_utils.model.paddle2onnx_worker MODEL.json PARAMS.pdiparams OUT.onnx OPSET [SAMPLES.npz]``

With SAMPLES, Paddle's own outputs for a random input are written beside the model, for `export` to compare.
"""

import gc

if __name__ == "__main__":
    gc.disable()  # a process of seconds that ends with all its objects: collecting took a tenth of it

import json
import os
import sys

import numpy as np
import onnx

from tutorial_utils.base.errors import CourseError
from tutorial_utils.model import export, onnx_file, paddle_program
from tutorial_utils.model.quiet_paddle import paddle

# Sizes for dynamic dimensions of the sample: a batch that is not 1, and an image size that strides of 32 divide.
SAMPLE_BATCH = 2
SAMPLE_SIZE = 64


def main(model_path: str, params_path: str, onnx_path: str, opset: str, samples_path: str | None = None) -> None:
    """Convert a static Paddle model to ONNX, and write sample inputs and outputs.

    Raises:
        ModelFileError: Paddle itself can't load the model; paddle2onnx might convert it to nonsense.
        ExportError: The result is not valid ONNX, or can't be written.
    """
    config = paddle.inference.Config(model_path, params_path)
    # oneDNN would bring the weights of ResNet-50 into its own order: 1.6 s for a model that runs once, if at all.
    config.disable_mkldnn()
    predictor = paddle_program.create_predictor(config)
    import paddle2onnx  # it imports Paddle too, and must find it quiet

    content = paddle2onnx.export(
        model_path, params_path, opset_version=int(opset), auto_upgrade_opset=False,
        enable_onnx_checker=False,  # `onnx_file.save` checks the model that it writes
        optimize_tool="None",  # the default would install packages with pip while it runs
    )  # fmt: skip
    model = simplify(onnx.load_from_string(content))
    onnx_file.save(model, onnx_path)
    if samples_path is not None:
        np.savez(samples_path, **run_paddle(predictor, model))


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and name the batch dimension; paddle2onnx writes each weight as a Constant node."""
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_param = "batch"
    weights, computing = _split(model.graph)
    used = {name for node in computing for name in node.input} | {value.name for value in model.graph.output}
    if any(node.op_type == "Shape" or weights.keys() >= set(filter(None, node.input)) for node in computing):
        from polygraphy.backend.onnx import fold_constants

        return fold_constants(model)
    # Nothing to compute, only to move: GraphSurgeon would copy ResNet-50's weights three times for it.
    for name in filter(used.__contains__, weights):
        weights[name].name = name
        model.graph.initializer.append(weights[name])
    del model.graph.node[:]
    del model.graph.value_info[:]  # it knows nothing of the batch's name
    model.graph.node.extend(computing)
    return model


def _split(graph: onnx.GraphProto) -> tuple[dict[str, onnx.TensorProto], list[onnx.NodeProto]]:
    """Return the weights among the nodes, by the names under which they are read, and the nodes that compute."""
    weights, computing = {}, []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            weights[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        else:
            computing.append(node)
    return weights, computing


def run_paddle(predictor: "paddle.inference.Predictor", model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Run Paddle on random inputs; return inputs as ``in:NAME`` and outputs as ``out:0``, ``out:1``, ..."""
    rng = np.random.default_rng(0)
    samples = {}
    for value in model.graph.input:
        tensor_type = value.type.tensor_type
        sizes = [dim.dim_value or (SAMPLE_SIZE if i else SAMPLE_BATCH) for i, dim in enumerate(tensor_type.shape.dim)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor_type.elem_type)
        samples[f"in:{value.name}"] = rng.standard_normal(sizes).astype(dtype)
        predictor.get_input_handle(value.name).copy_from_cpu(samples[f"in:{value.name}"])
    predictor.run()
    for i, name in enumerate(predictor.get_output_names()):
        samples[f"out:{i}"] = predictor.get_output_handle(name).copy_to_cpu()
    return samples


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CourseError as error:
        print(json.dumps([type(error).__name__, error.cause, error.remedy]), file=sys.stderr)
        sys.exit(export.WORKER_COURSE_ERROR)
    os._exit(0)  # all is written, and Paddle would take half a second to take itself apart
