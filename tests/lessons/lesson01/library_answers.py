"""Answers to the exercises 01e.1 and 01e.4, which call TensorRT and ONNX Runtime: one way, with what can go wrong."""

from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization

from tutorial_utils.base.flavour import installed_flavour

# --- 01e.1 -----------------------------------------------------------------------------------------------------------


def building(choose, *, detailed=True, unmark=False, with_profile=True):
    """Return an answer to 01e.1 that marks those tensors of the network for which ``choose(layer, output, name)``."""

    def engine_with_output(onnx_path, name):
        from tutorial_utils.engine.tensorrt import MessageLog, trt

        log = MessageLog()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        assert parser.parse_from_file(onnx_path)
        if unmark:
            network.unmark_output(network.get_output(0))
        for layer in map(network.get_layer, range(network.num_layers)):
            output = layer.get_output(0)
            if choose(layer, output, name) and not output.is_network_output:
                network.mark_output(output)
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *[(64, 3, 32, 32)] * 3)
        config = builder.create_builder_config()
        if with_profile:
            config.add_optimization_profile(profile)
        if detailed:
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        return builder.build_serialized_network(network, config), log

    return engine_with_output


def is_it(layer, output, name):
    return output.name == name


def is_input(layer, output, name):
    """Whether the layer reads the tensor: its own output is the next one."""
    given = [layer.get_input(i) for i in range(layer.num_inputs)]
    return name in [tensor.name for tensor in given if tensor is not None]


def never(layer, output, name):
    return False


def has_a_layer(layer, output, name):
    """Whether the tensor isn't a weight, which is an output of a layer, too."""
    return layer.num_inputs > 0


def marks_in_the_file(onnx_path, name):
    """Return a right answer: the file is given the output, and TensorRT reads the file."""
    from tutorial_utils.engine.tensorrt import MessageLog, trt

    model = onnx.shape_inference.infer_shapes(onnx.load(onnx_path))
    model.graph.output.extend(value for value in model.graph.value_info if value.name == name)
    log = MessageLog()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    assert parser.parse(model.SerializeToString())
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 3, 32, 32), (64, 3, 32, 32), (64, 3, 32, 32))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return bytes(builder.build_serialized_network(network, config)), log


ENGINES = [
    (building(never), "the tensor stays inside of a kernel"),
    (building(is_input), "another tensor than that which was asked for"),
    (building(has_a_layer), "others that nobody asked for"),
    (building(is_it, unmark=True), "lacks an output that the file has"),
    *([(building(is_it, detailed=False), "`profiling_verbosity`")] if installed_flavour() == "tensorrt_rtx" else []),
]
RIGHT_ENGINES = [building(is_it), marks_in_the_file, lambda *given: list(building(is_it)(*given))]

# --- 01e.4 -----------------------------------------------------------------------------------------------------------

# What TensorRT wants of the quantizer.
FORM = {
    "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}  # fmt: skip


def scaled(photos):
    return (photos / 127.5 - 1).astype(np.float32)


def quantizing(feed=scaled, *, fold=True, operators=("Conv",), per_channel=True, form=FORM, **how):
    """Return an answer to 01e.4: feed the photos so, and quantize with these options."""

    def to_int8(onnx_path, photos, target_path):
        batches = iter(np.array_split(feed(photos), 2))

        class Reader(quantization.CalibrationDataReader):
            def get_next(self):
                return next(({"x": batch} for batch in batches), None)

        source = onnx_path
        if fold:
            source = target_path
            quantization.quant_pre_process(onnx_path, source, skip_symbolic_shape=True)
        options = {"op_types_to_quantize": list(operators), "per_channel": per_channel, "extra_options": form, **how}
        quantization.quantize_static(source, target_path, Reader(), **options)
        return target_path

    return to_int8


def quantizes_dynamically(onnx_path, photos, target_path):
    quantization.quant_pre_process(onnx_path, target_path, skip_symbolic_shape=True)
    quantization.quantize_dynamic(target_path, target_path)
    return target_path


def only_folds(onnx_path, photos, target_path):
    quantization.quant_pre_process(onnx_path, target_path, skip_symbolic_shape=True)
    return target_path


def without(option):
    return {name: value for name, value in FORM.items() if name != option}


def by_the_package(onnx_path, photos, target_path):
    from tutorial_utils.model import onnx_file, quantization

    last = [node.name for node in onnx_file.load(onnx_path).graph.node if node.op_type == "MatMul"]
    return Path(quantization.to_int8(onnx_path, target_path, scaled(photos), exclude=last))


def with_a_loose_end(onnx_path, photos, target_path):
    """Write a right file, and let a node read what nobody writes."""
    model = onnx.load(quantizing()(onnx_path, photos, target_path))
    model.graph.node[-1].input[0] = "nowhere"
    Path(target_path).write_bytes(model.SerializeToString())
    return target_path


FILES = [
    (quantizing(quant_format=quantization.QuantFormat.QOperator), "has integer operators"),
    (quantizes_dynamically, "has integer operators"),
    (only_folds, "has no `QuantizeLinear`"),
    (quantizing(form=without("ActivationSymmetric")), "zero points that aren't 0"),
    (quantizing(activation_type=quantization.QuantType.QUInt8), "signed ones of 8 bits"),
    (quantizing(form=without("QuantizeBias")), "biases of INT32"),
    (
        quantizing(
            operators=("Conv", "MatMul"), form={**FORM, "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul"]}
        ),
        "the matrix product at the end, too",
    ),
    (quantizing(form=without("OpTypesToExcludeOutputQuantization")), "tensors that no convolution reads"),
    (quantizing(nodes_to_exclude=["Conv.1"]), "At least one convolution reads FP32"),
    (quantizing(per_channel=False), "a single scale"),
    (quantizing(lambda photos: photos.astype(np.float32)), "far wider than the activations"),
    (quantizing(lambda photos: scaled(photos)[:2]), "cut off a part"),
    (quantizing(lambda photos: (photos / 255).astype(np.float32)), "cut off a part"),
    (quantizing(lambda photos: scaled(scaled(photos))), "cut off a part"),
    (lambda onnx_path, photos, target_path: target_path, "There is no ONNX file at the path"),
]
RIGHT_FILES = [
    quantizing(),
    quantizing(fold=False),
    by_the_package,
    quantizing(calibrate_method=quantization.CalibrationMethod.Percentile),
    quantizing(form={**FORM, "AddQDQPairToWeight": True}),
]

# --- what is no mistake with a name ----------------------------------------------------------------------------------

UNNAMED = [
    ("01e.1", building(is_it, with_profile=False), "returned no plan (TensorRT says: "),
    ("01e.1", lambda *given: building(is_it)(*given)[0], "and not a plan and a MessageLog"),
    ("01e.4", lambda *given: b"int8.onnx", "bytes and not `target_path`"),
    ("01e.4", with_a_loose_end, "a file that ONNX Runtime can't run ("),
]
