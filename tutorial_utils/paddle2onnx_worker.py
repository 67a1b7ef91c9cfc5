"""Run paddle2onnx in a process of its own: on an unsupported operator it aborts the process that calls it.

Usage: ``python -m tutorial_utils.paddle2onnx_worker MODEL.json PARAMS.pdiparams OUT.onnx OPSET [SAMPLES.npz]``

With SAMPLES, Paddle's own outputs for a random input are written beside the model, for `onnx_export` to compare.
The exit status is DAMAGED if Paddle itself can't load the model; paddle2onnx might convert it to nonsense.
"""

import os
import sys

import numpy as np

from tutorial_utils.quiet_paddle import paddle

# Sizes for dynamic dimensions of the sample: a batch that is not 1, and an image size that strides of 32 divide.
SAMPLE_BATCH = 2
SAMPLE_SIZE = 64
DAMAGED = 3


def main(model_path: str, params_path: str, onnx_path: str, opset: str, samples_path: str | None = None) -> None:
    """Convert a static Paddle model to ONNX, and write sample inputs and outputs."""
    config = paddle.inference.Config(model_path, params_path)
    # oneDNN would bring the weights of ResNet-50 into its own order: 1.6 s for a model that runs once, if at all.
    config.disable_mkldnn()
    try:
        predictor = paddle.inference.create_predictor(config)
    except Exception as error:  # Paddle raises RuntimeError, ValueError and its own types here
        print(error, file=sys.stderr)
        sys.exit(DAMAGED)
    import paddle2onnx  # it imports Paddle too, and must find it quiet

    paddle2onnx.export(
        model_path, params_path, onnx_path, opset_version=int(opset), auto_upgrade_opset=False,
        enable_onnx_checker=False,  # `onnx_export.save` checks the model that it writes
        optimize_tool="None",  # the default would install packages with pip while it runs
    )  # fmt: skip
    if samples_path is not None:
        np.savez(samples_path, **run_paddle(predictor, onnx_path))


def run_paddle(predictor: "paddle.inference.Predictor", onnx_path: str) -> dict[str, np.ndarray]:
    """Run Paddle on random inputs; return inputs as ``in:NAME`` and outputs as ``out:0``, ``out:1``, ..."""
    import onnx

    rng = np.random.default_rng(0)
    samples = {}
    for value in onnx.load(onnx_path).graph.input:
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
    main(*sys.argv[1:])
    os._exit(0)  # all is written, and Paddle would take half a second to take itself apart
