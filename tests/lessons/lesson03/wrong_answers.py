"""Wrong answers to the exercises of lesson 03, each with words from the message that its check must give."""

import hashlib
import json
from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from tutorial_utils.engine.tensorrt import trt


def built(file, log, *batches, detailed=True, half=False, builder=None, name=""):
    """Build an engine as a right answer does, but for what is asked otherwise."""
    builder = builder or trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if name:
        network.name = name
    parser = trt.OnnxParser(network, log)
    model = onnx.load(file)
    parser.parse((convert_float_to_float16(model, keep_io_types=True) if half else model).SerializeToString())
    config = builder.create_builder_config()
    if detailed:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for sizes in batches:
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *[(size, 3, 32, 32) for size in sizes])
        config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)


def profiles(*batches, **kwargs):
    """Return a wrong answer to 03e.1: an engine with other profiles."""
    return lambda file, log: built(file, log, *batches, **kwargs)


ONE, MANY, RANGE = (1, 1, 1), (8, 32, 64), (1, 32, 64)


def unnamed(file, log):
    builder = trt.Builder(log)
    return tuple(built(file, log, RANGE, builder=builder) for _ in range(2))


def two_builders(file, log):
    return tuple(built(file, log, RANGE) for _ in range(2))


def other_profile(file, log):
    return tuple(built(file, log, sizes, name="classifier") for sizes in (RANGE, MANY))


def without_profile(file, log):
    return built(file, log) and None


def one_plan(file, log):
    return built(file, log, RANGE, name="classifier")


def key_of(*parts):
    """Return a wrong answer to 03e.3: only this counts, each a function of what is given."""

    def cache_key(file, tensorrt, gpu, profiles, workspace):
        given = {"file": file, "tensorrt": tensorrt, "gpu": gpu, "profiles": profiles, "workspace": workspace}
        return hashlib.sha256(json.dumps([part(given) for part in parts]).encode()).hexdigest()

    return cache_key


def content(given):
    return Path(given["file"]).read_bytes().hex()


def given(name):
    return lambda values: values[name]


TENSORRT, GPU, PROFILES, WORKSPACE = map(given, ("tensorrt", "gpu", "profiles", "workspace"))
OPTIONS = (PROFILES, WORKSPACE)
_counter = iter(range(10**6))


def kernels(condition):
    return lambda report: [kernel.name for kernel in report.kernels if condition(kernel)]


def reads(kernel):
    return {tensor.dtype for tensor in kernel.inputs}


def writes(kernel):
    return {tensor.dtype for tensor in kernel.outputs}


def only_fp32(layer):
    return reads(layer) | writes(layer) == {"fp32"}


def mended(best=32, detailed=True, half=True, batches=True, unknown=()):
    """Return a wrong answer to 03e.5: right but for this."""

    def build_engine(file, log, half_wanted):
        if "lookup" in file:
            return unknown
        sizes = [(1, best, 64)] if batches else []
        return built(file, log, *sizes, detailed=detailed, half=half_wanted and half)

    return build_engine


WRONG_ANSWERS = {
    "03e.1": [
        (profiles(ONE, MANY, detailed=False), "profiling_verbosity"),
        (profiles(MANY, ONE), "in the wrong order"),
        (profiles(RANGE), "one profile for all"),
        (profiles(ONE, (8, 64, 32)), "second profile is missing"),
        (profiles(ONE, (8, 64, 64)), "for its largest batch"),
        (profiles(), "There is no plan"),
    ],
    "03e.2": [
        (unnamed, "gives each network"),
        (two_builders, "isn't called"),
        (other_profile, "something else differs"),
        (one_plan, "as a tuple"),
        (without_profile, "There is no plan"),
    ],
    "03e.3": [
        (key_of(content, TENSORRT, GPU, *OPTIONS, lambda _: next(_counter)), "would ever be found"),
        (key_of(lambda values: Path(values["file"]).name, TENSORRT, GPU, *OPTIONS), "stale engine"),
        (key_of(content, given("file"), TENSORRT, GPU, *OPTIONS), "under another name"),
        (key_of(content, lambda values: values["tensorrt"].rsplit(".", 1)[0], GPU, *OPTIONS), "all numbers"),
        (key_of(content, TENSORRT, lambda values: values["gpu"].split()[-1], *OPTIONS), "capability is not enough"),
        (key_of(content, TENSORRT, GPU, lambda values: values["profiles"][0][:2], WORKSPACE), "larger batches"),
        (
            key_of(
                content, TENSORRT, GPU, lambda values: [(low, high) for low, _, high in values["profiles"]], WORKSPACE
            ),
            "another batch",
        ),
        (key_of(content, TENSORRT, GPU, lambda values: values["profiles"][0], WORKSPACE), "isn't in the engine"),
        (key_of(content, TENSORRT, GPU, PROFILES), "limit may rule"),
        (key_of(content, TENSORRT, GPU, lambda values: sorted(values["profiles"]), WORKSPACE), "have numbers"),
    ],
    "03e.4": [
        (kernels(lambda kernel: writes(kernel) == {"fp32"}), "what writes FP32"),
        (kernels(lambda kernel: reads(kernel) == {"fp32"}), "what reads FP32"),
        (kernels(lambda kernel: "fp32" in reads(kernel) | writes(kernel)), "touches FP32"),
        (lambda report: [layer.name for layer in report.layers if reads(layer) | writes(layer) <= {"fp32"}], "orders"),
        (lambda report: sum(map(only_fp32, report.kernels)), "how many there are"),
        (lambda report: kernels(only_fp32)(report) if len(report.kernels) > 2 else [], "holds no FP16 at all"),
        (lambda report: sorted(kernels(only_fp32)(report)), "Keep the order"),
        (kernels(lambda kernel: kernel.dtypes in (("fp32",), ("int64",))), "Integers stay"),
    ],
    "03e.5": [
        (mended(detailed=False), "profiling_verbosity"),
        (mended(batches=False), "There is no plan"),
        (mended(best=64), "optimizes for 32"),
        (mended(half=False), "FP16 was asked for"),
        (mended(unknown=None), "read to its end"),
        (mended(unknown=[]), "num_errors"),
    ],
}
