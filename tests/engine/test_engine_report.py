import json
from dataclasses import replace

import pytest

from tutorial_utils.engine import BuildReport, EngineLayer, EngineTensor
from tutorial_utils.engine.report import layers_from_inspector, layers_from_log, memory_from_log

X = EngineTensor("x", (-1, 3, 32, 32), "fp32", "NCHW", (3072, 1024, 32, 1))
HALF = EngineTensor("conv_out", (-1, 16, 32, 32), "fp16", "NHWC", (16384, 1, 512, 16))
CONVOLUTION = EngineLayer("conv_0", "correlation", (X,), (HALF,), ("conv", "relu"))
IN_LOG = replace(CONVOLUTION, tactic="some_kernel", weights="int8")
WAIT = EngineLayer("wait_1", "wait", (), (), ())


def without_strides(layer):
    """As reports are that were kept before strides were read, and those of TensorRT 10."""
    sides = {side: tuple(replace(one, strides=()) for one in getattr(layer, side)) for side in ("inputs", "outputs")}
    return replace(layer, **sides)


LOG = """\
Layers:
Name: conv_0, LayerType: correlation, Inputs: [ { Name: x, Dimensions: [-1,3,32,32], Strides: [3072,1024,32,1], \
StrideOrder: [3,2,1,0], Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: w, \
Dimensions: [16,3,3,3], Strides: [27,1,9,3], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major \
format }], Outputs: [ { Name: conv_out, Dimensions: [-1,16,32,32], Strides: [16384,1,512,16], StrideOrder: [3,0,2,1], \
Datatype: Half, Format: (NHWC) Channel major format }], TacticName: some_kernel, StreamId: 0, \
Metadata: [ONNX Layer: conv][ONNX Layer: relu]
Name: wait_1, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 1, Metadata: \


I/O Tensors:
Name: x, IOMode: input
"""


def test_layers_from_log():
    assert layers_from_log(["Building.", LOG, "Done."]) == (IN_LOG, WAIT)


def test_constants_are_no_inputs():
    (layer, _) = layers_from_log([LOG])
    assert layer.dtypes == ("fp16", "fp32")


def test_last_dump_of_a_log_counts():
    first = LOG.replace("conv_0", "older")
    assert layers_from_log([first, LOG])[0].name == "conv_0"


@pytest.mark.parametrize(
    "messages",
    [[], ["Layers:\n"], ["Layers:\nconv_0 reads x and writes conv_out\n"], ["Not a dump: " + LOG]],
    ids=["no message", "empty dump", "other form", "dump inside another message"],
)
def test_log_without_layers(messages):
    assert layers_from_log(messages) == ()


# As TensorRT 10 writes them, whose tensors have their type alone.
LOG_OF_10 = """Layers:
Name: Reformatting CopyNode for Input Tensor 0 to conv + relu, LayerType: Reformat, Inputs: [ { Name: x, Location: \
Device, Dimensions: [1,3,224,224], Format/Datatype: Half }], Outputs: [ { Name: Reformatted Input Tensor 0 to conv + \
relu, Location: Device, Dimensions: [1,3,224,224], Format/Datatype: Half }], ParameterType: Reformat, Origin: \
REFORMAT, TacticValue: 0x00000000000003e8, StreamId: 0, Metadata: \

Name: conv + relu, LayerType: CaskConvolution, Inputs: [ { Name: Reformatted Input Tensor 0 to conv + relu, Location: \
Device, Dimensions: [1,3,224,224], Format/Datatype: Half }], Outputs: [ { Name: r, Location: Device, Dimensions: \
[1,64,55,55], Format/Datatype: Half }], ParameterType: Convolution, Kernel: [11,11], Weights: {"Type": "Half", \
"Count": 23232}, Bias: {"Type": "Float", "Count": 64}, HasBias: 1, Activation: RELU, TacticName: \
sm80_xmma_fprop_f16f16, TacticValue: 0x280b0ad3c23d8442, StreamId: 0, Metadata: [ONNX Layer: conv]\x1e[ONNX Layer: relu]
Name: gemm, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [-1,64], Format/Datatype: Half }], Outputs: [ { Name: y, \
Dimensions: [3,-1,64], Format/Datatype: Half }], TacticName: sm80_xmma_gemm_f16f16, StreamId: 0, Metadata: \
[ONNX Layer: MatMul.0]\x1f[ONNX Layer: Add.4]

Bindings:
x
y
""".replace("Metadata: \n\nName", "Metadata: \nName")


def test_log_of_tensorrt_10():
    reformat, convolution, product = layers_from_log([LOG_OF_10])
    assert (reformat.type, reformat.inputs[0].format, reformat.inputs[0].strides) == ("Reformat", "unknown", ())
    assert (convolution.weights, convolution.tactic) == ("fp16", "sm80_xmma_fprop_f16f16")
    assert convolution.onnx_nodes == ("conv", "relu")
    assert convolution.outputs == (EngineTensor("r", (1, 64, 55, 55), "fp16", "unknown"),)
    assert (product.inputs[0].shape, product.onnx_nodes) == ((-1, 64), ("MatMul.0", "Add.4"))


def test_tensors_in_another_form_make_the_log_unreadable():
    """Without them, every layer would read and write nothing."""
    assert layers_from_log([LOG_OF_10.replace("Format/Datatype", "Kind")]) == ()


def test_one_layer_in_another_form_makes_the_log_unreadable():
    assert layers_from_log([LOG.replace("LayerType: wait, Inputs: []", "LayerType: wait")]) == ()


def test_a_scale_is_no_weight():
    """A product of two activations has constants too: the scales that its INT8 inputs are divided by."""
    scale = LOG.replace("Dimensions: [16,3,3,3]", "Dimensions: [1,1]")
    assert layers_from_log([scale])[0].weights == ""


def test_memory_from_log():
    log = [
        "Total Activation Memory: 4096 bytes",
        "Total Weights Memory: 12 bytes",
        "Total Activation Memory: 8192 bytes",
    ]
    assert memory_from_log(log) == {"activation_bytes": 8192, "weights_bytes": 12}
    assert memory_from_log(["Total Scratch Memory: 1 bytes"]) == {}


def test_memory_of_two_profiles_is_that_of_the_larger():
    log = [f"Total Activation Memory: {size} bytes" for size in (19267584, 8241152)]
    assert memory_from_log(log) == {"activation_bytes": 19267584}


def tensor(name, dims, **kind):
    return {"Name": name, "Location": "Device", "Dimensions": dims, **kind}


def inspector_text(input_kind, output_kind, **rest):
    layer = {
        "Name": "conv_0",
        "LayerType": "correlation",
        "Inputs": [tensor("x", [-1, 3, 32, 32], **input_kind)],
        "Outputs": [tensor("conv_out", [-1, 16, 32, 32], **output_kind)],
        "StreamId": 0,
        "Metadata": "[ONNX Layer: conv]\x1f[ONNX Layer: relu]",
    }
    return json.dumps({"Layers": [layer], **rest})


def test_inspector_of_tensorrt_10():
    text = inspector_text(
        {"Format/Datatype": "Row major linear FP32"},
        {"Format/Datatype": "(NHWC) Channel major FP16 format"},
        Bindings=["x", "y"],
    )
    assert layers_from_inspector(text) == (without_strides(CONVOLUTION),)


@pytest.mark.parametrize(
    ("combined", "dtype"),
    [("Half", "fp16"), ("Row major Int8 format", "int8"), ("N/A due to dynamic shapes", "N/A due to dynamic shapes")],
)
def test_short_forms_of_tensorrt_10(combined, dtype):
    (layer,) = layers_from_inspector(inspector_text({"Format/Datatype": combined}, {"Format/Datatype": combined}))
    assert layer.inputs[0].dtype == dtype


def test_inspector_of_tensorrt_11_and_rtx():
    text = inspector_text(
        {"Strides": [3072, 1024, 32, 1], "StrideOrder": [3, 2, 1, 0], "Datatype": "Float",
         "Format": "(Linear) Row major linear format"},
        {"Strides": [16384, 1, 512, 16], "StrideOrder": [3, 0, 2, 1], "Datatype": "Half",
         "Format": "(Transposed) Transposed format"},
        **{"I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}]},
    )  # fmt: skip
    assert layers_from_inspector(text) == (CONVOLUTION,)


def test_tactic_and_weights_of_the_inspector():
    """In the form of TensorRT 8.6, which names no ONNX nodes."""
    kind = {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}
    values = json.loads(inspector_text(kind, kind, Bindings=["x", "y"]))
    (layer,) = values["Layers"]
    del layer["Metadata"], layer["StreamId"]
    layer |= {"Weights": {"Type": "Int8", "Count": 864}, "TacticName": "sm80_xmma_fprop_i8i8_i8i32_f32_nchw"}
    (read,) = layers_from_inspector(json.dumps(values))
    assert (read.weights, read.tactic) == ("int8", "sm80_xmma_fprop_i8i8_i8i32_f32_nchw")
    assert (read.dtypes, read.onnx_nodes) == (("int8",), ())


def test_report_of_an_older_recording():
    """Its layers have neither tactic nor weights, and its tensors no strides."""
    values = BuildReport("TensorRT-RTX", "1.6.1", layers=(IN_LOG,)).to_dict()
    (layer,) = values["layers"]
    for name in ("tactic", "weights"):
        del layer[name]
    for one in (*layer["inputs"], *layer["outputs"]):
        del one["strides"]
    assert BuildReport.from_dict(values).layers == (without_strides(CONVOLUTION),)


def test_unknown_data_type_keeps_its_name():
    text = inspector_text({"Datatype": "FP6", "Format": "Linear"}, {"Datatype": "Half", "Format": "Linear"})
    assert layers_from_inspector(text)[0].inputs[0].dtype == "fp6"


@pytest.mark.parametrize("text", ['{"Layers": ["conv_0", "conv_1"], "Bindings": ["x"]}', '{"Layers": []}', "{}"])
def test_inspector_without_details(text):
    assert layers_from_inspector(text) == ()


def test_kernels_leave_out_what_orders_streams():
    report = BuildReport("TensorRT", "11.0", layers=(CONVOLUTION, WAIT))
    assert report.kernels == (CONVOLUTION,)
    assert report.kernel_dtypes == {"fp16": 1}


HOST_TO_DEVICE = """\
Name: [ShapeHostToDeviceCopy 0], LayerType: ShapeHostToDevice, Inputs: [], Outputs: [ { Name: (Unnamed Layer* 17) \
[Shuffle]_output, Location: Device, Dimensions: [], Datatype: Int32, Format: Format not available due to dynamic \
shapes }], ParameterType: ShapeH2D, shapeValues0: [-4], TacticValue: 0x0000000000000000, StreamId: 0, Metadata: \
"""


def test_a_layer_without_constants():
    """Copies of shapes to the GPU, as in every recurrent network of dynamic length: the other layers stay."""
    layers = layers_from_log([LOG.replace("Layers:\n", f"Layers:\n{HOST_TO_DEVICE}\n", 1)])
    output = EngineTensor("(Unnamed Layer* 17) [Shuffle]_output", (), "int32", "unknown")
    assert layers == (
        EngineLayer("[ShapeHostToDeviceCopy 0]", "ShapeHostToDevice", (), (output,), ()), IN_LOG, WAIT,
    )  # fmt: skip
    assert not layers[0].is_kernel


def test_names_with_brackets_and_commas():
    text = LOG.replace("Name: x,", "Name: blocks[0], {x},").replace("Name: conv_out,", "Name: y[1], z,")
    nodes = "[ONNX Layer: blocks[0]/conv]\x1f[ONNX Layer: a], b]"
    (layer, _) = layers_from_log([text.replace("[ONNX Layer: conv][ONNX Layer: relu]", nodes)])
    assert [tensor.name for tensor in layer.inputs + layer.outputs] == ["blocks[0], {x}", "y[1], z"]
    assert layer.onnx_nodes == ("blocks[0]/conv", "a], b")
