"""The TensorRT calls of the package exist: in TensorRT 10.13, by its public stubs, and in the installed TensorRT-RTX.

mypy checks them twice, with `tensorrt` being one and the other. What only one has must stand under ``if IS_RTX``. The
stubs of TensorRT-RTX are made here from the installed module. Nothing of this needs a GPU. The program that stands in
the cells of lessons 03b and 03c is checked with them.
"""

import ast
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import pytest
from mypy import stubgen

from tutorial_utils.lessons.lesson03 import program_cells

trt = pytest.importorskip("tensorrt_rtx")

ROOT = Path(__file__).parents[2]
SOURCES = [
    "tutorial_utils/engine",
    "tutorial_utils/runners/paddle_plan.py",
    "tutorial_utils/runners/tensorrt.py",
    "tutorial_utils/lessons/lesson01/exercises_engine.py",
    "tutorial_utils/lessons/lesson01/runtime_cache.py",
    "tutorial_utils/lessons/lesson03/builder.py",
]
PUBLIC_STUBS = Path(sys.prefix) / "tensorrt-stubs"  # the Makefile installs them there
VERSIONS = ("TensorRT 10.13", "TensorRT-RTX")

# What mypy must say of these lines, by version; where a version isn't named, nothing.
PROBES = {
    "builder.no_such_call()": dict.fromkeys(VERSIONS, '"Builder" has no attribute "no_such_call"'),
    "config.no_such_option = 1": dict.fromkeys(VERSIONS, '"IBuilderConfig" has no attribute "no_such_option"'),
    "trt.NoSuchClass": dict.fromkeys(VERSIONS, 'Module has no attribute "NoSuchClass"'),
    "builder.build_serialized_network(network)": dict.fromkeys(VERSIONS, 'Missing positional argument "config"'),
    "builder.create_network(no_such_argument=1)": dict.fromkeys(VERSIONS, 'keyword argument "no_such_argument"'),
    "config.set_flag(trt.BuilderFlag.FP16)": {"TensorRT-RTX": 'has no attribute "FP16"'},
    "config.num_compute_capabilities = 1": {"TensorRT 10.13": 'has no attribute "num_compute_capabilities"'},
    "if IS_RTX: config.num_compute_capabilities = 2": {},
    "if not IS_RTX: config.set_flag(trt.BuilderFlag.INT8)": {},
    "if IS_RTX: builder.no_call_of_rtx()": {"TensorRT-RTX": 'has no attribute "no_call_of_rtx"'},
    "if not IS_RTX: builder.no_call_of_trt()": {"TensorRT 10.13": 'has no attribute "no_call_of_trt"'},
}
PROBE_START = """
from tutorial_utils.engine.tensorrt import IS_RTX, trt
builder = trt.Builder(trt.Logger())
network = builder.create_network()
config = builder.create_builder_config()
"""


# The same of the program in the notebooks, with these cells after it.
PROGRAM_PROBES = {
    "class Probe(Session):\n    def run(self): self.context.no_such_call()": dict.fromkeys(
        VERSIONS, '"IExecutionContext" has no attribute "no_such_call"'
    ),
    "class Other(Lane):\n    def run(self): trt.CudaGraphStrategy": {
        "TensorRT 10.13": 'has no attribute "CudaGraphStrategy"'
    },
}


class Finding(NamedTuple):
    """One error that mypy reports."""

    file: str
    line: int
    message: str


def valid_syntax(line):
    """Drop the parameters of a function that Python doesn't allow, such as one named `in`."""
    function = re.match(r"( *def \w+\().*?(:(?: \.\.\.)?)$", line)
    if function:
        try:
            ast.parse(line.strip() + ("" if line.endswith("...") else " ..."))
        except SyntaxError:
            return f"{function[1]}*args, **kwargs){function[2]}"
    return line


@pytest.fixture(scope="module", params=VERSIONS)
def version(request):
    return request.param


def stubs_of(version, tmp_path_factory):
    """Return a folder that holds the type stubs of a version as the module `tensorrt`, or None without public ones."""
    folder = tmp_path_factory.mktemp("stubs")
    source = PUBLIC_STUBS
    if version == "TensorRT-RTX":
        source = tmp_path_factory.mktemp("generated")
        modules = ["-m", "tensorrt_rtx_bindings", "-m", "tensorrt_rtx_bindings.tensorrt_rtx"]
        stubgen.main(["--inspect-mode", "--quiet", *modules, "--output", str(source)])
        (source / "tensorrt").mkdir()
        names = ("*", "__version__ as __version__")
        lines = [f"from tensorrt_rtx_bindings import {name}" for name in names]
        (source / "tensorrt" / "__init__.pyi").write_text("\n".join(lines))
    elif not source.is_dir():
        return None
    for path in source.rglob("*.pyi"):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text("\n".join(map(valid_syntax, path.read_text().splitlines())))
    return folder


def check(version, stubs, *probes):
    """Start mypy on the sources and the probes."""
    constant = "--always-true" if version == "TensorRT-RTX" else "--always-false"
    options = [constant, "IS_RTX", "--no-error-summary", "--cache-dir", stubs / "cache"]
    return subprocess.Popen(
        [sys.executable, "-m", "mypy", *options, *SOURCES, *probes],
        cwd=ROOT, env={"MYPYPATH": f"{stubs}:{ROOT}"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def program_source():
    """The program of the notebooks, which tries TensorRT-RTX first: mypy knows either by the name `tensorrt`.

    It declares few types, so what is assigned where None was is not compared.
    """
    source = program_cells.source().replace("import tensorrt_rtx as trt", "import tensorrt as trt")
    return f'# mypy: disable-error-code="assignment"\n{source}'


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    """The processes that check each version, None without its stubs. Both run at once."""
    probe = tmp_path_factory.mktemp("probe") / "probe.py"
    probe.write_text(PROBE_START + "\n".join(PROBES))
    program = probe.with_name("program.py")
    program.write_text(program_source() + "\n".join(PROGRAM_PROBES))
    stubs = {version: stubs_of(version, tmp_path_factory) for version in VERSIONS}
    return {version: folder and check(version, folder, probe, program) for version, folder in stubs.items()}


@pytest.fixture(scope="module")
def findings(version, checks):
    """What mypy finds in the sources and, in a file `probe.py`, in the probes."""
    if checks[version] is None:
        pytest.skip(f"TensorRT's public stubs are not in {PUBLIC_STUBS}: any make target installs them")
    printed, _ = checks[version].communicate()
    assert checks[version].returncode in (0, 1), printed
    rows = re.findall(r"^(.+?):(\d+): error: (.*)$", printed, re.MULTILINE)
    probes = {"probe.py", "program.py"}
    names = [Path(file).name if Path(file).name in probes else file for file, _, _ in rows]
    return [Finding(name, int(line), text) for name, (_, line, text) in zip(names, rows, strict=True)]


def test_calls_exist(findings):
    end = program_source().count("\n")
    wrong = [
        f"{file}:{line}: {message}"
        for file, line, message in findings
        if file != "probe.py" and not (file == "program.py" and line > end)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("probe", PROBES)
def test_a_call_that_does_not_exist_is_found(probe, version, findings):
    line = PROBE_START.count("\n") + list(PROBES).index(probe) + 1
    found = [finding.message for finding in findings if finding[:2] == ("probe.py", line)]
    expected = PROBES[probe].get(version)
    assert len(found) == bool(expected), found
    if expected:
        assert expected in found[0]


@pytest.mark.parametrize("probe", PROGRAM_PROBES)
def test_a_call_that_does_not_exist_is_found_in_the_program(probe, version, findings):
    before = list(PROGRAM_PROBES)[: list(PROGRAM_PROBES).index(probe)]
    line = program_source().count("\n") + sum(one.count("\n") + 1 for one in before) + 2
    found = [finding.message for finding in findings if finding[:2] == ("program.py", line)]
    expected = PROGRAM_PROBES[probe].get(version)
    assert len(found) == bool(expected), found
    if expected:
        assert expected in found[0]


# --- how the versions differ -----------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """A name of the API, the versions that have it, and what the package makes of that.

    10 and RTX are checked here, with 10.13 and the installed version. 8.6 and 11 were read in the wheels of
    tensorrt-bindings 8.6.1 and tensorrt-cu12-bindings 11.4.0.106, and in NVIDIA's guides to migration.
    """

    name: str
    in_8_6: bool
    in_10: bool
    in_11: bool
    in_rtx: bool
    consequence: str


YES, NO = True, False
# fmt: off
DIFFERENCES = [Difference(*row) for row in (
    # name                                           8.6  10   11   RTX  what the package does
    ("NetworkDefinitionCreationFlag.EXPLICIT_BATCH", YES, YES, NO,  NO,  "not set: batches are always explicit"),
    ("NetworkDefinitionCreationFlag.STRONGLY_TYPED", NO,  YES, YES, YES, "set, but where 10 is asked not to: no 8.6"),
    ("BuilderFlag.FP16",                             YES, YES, NO,  NO,  "set for weakly typed networks, else refused"),
    ("BuilderFlag.INT8",                             YES, YES, NO,  NO,  "the same; with Q/DQ nodes or a calibrator"),
    ("IInt8Calibrator",                              YES, YES, NO,  NO,  "engine.calibrators; else ONNX Runtime"),
    ("IBuilderConfig.set_calibration_profile",       YES, YES, NO,  NO,  "called where there is a calibrator"),
    ("IBuilderConfig.create_timing_cache",           YES, YES, YES, YES, "not called of RTX, where it has no effect"),
    ("Builder.platform_has_fast_fp16",               YES, YES, NO,  NO,  "not asked"),
    ("Builder.max_batch_size",                       YES, NO,  NO,  NO,  "the optimization profile bounds the batch"),
    ("Builder.build_engine",                         YES, NO,  NO,  NO,  "build_serialized_network, which all have"),
    ("Builder.build_serialized_network",             YES, YES, YES, YES, "used"),
    ("IBuilderConfig.max_workspace_size",            YES, NO,  NO,  NO,  "set_memory_pool_limit, which all have"),
    ("IBuilderConfig.set_memory_pool_limit",         YES, YES, YES, YES, "used"),
    ("IBuilderConfig.progress_monitor",              NO,  YES, YES, YES, "drives the progress bar"),
    ("ParserError.node_operator",                    NO,  YES, YES, YES, "names the operator that can't be converted"),
    ("ErrorCode.UNSUPPORTED_NODE_ATTR",              NO,  YES, YES, YES, "tells such an operator from a damaged file"),
    ("IBuilderConfig.set_compute_capability",        NO,  NO,  NO,  YES, "targets under IS_RTX; TensorRT: this GPU"),
    ("ComputeCapability",                            NO,  NO,  NO,  YES, "names of the targets, under IS_RTX"),
    ("ICudaEngine.num_bindings",                     YES, NO,  NO,  NO,  "tensors by name"),
    ("ICudaEngine.num_io_tensors",                   YES, YES, YES, YES, "used"),
    ("IExecutionContext.execute_async_v2",           YES, NO,  NO,  NO,  "execute_async_v3, which all have"),
    ("IExecutionContext.execute_async_v3",           YES, YES, YES, YES, "used"),
    ("ICudaEngine.create_runtime_config",            NO,  YES, YES, YES, "under IS_RTX: 10.5 doesn't have it yet"),
    ("CudaGraphStrategy",                            NO,  NO,  NO,  YES, "under IS_RTX; else runners.cuda_graph"),
    ("EngineInspector.get_engine_information",       YES, YES, YES, YES, "two forms of JSON, see engine.report"),
)]
# fmt: on


def names_in_stub(path):
    """The classes of a stub and, as `Class.name`, what they define."""
    names = set()
    for node in ast.parse("\n".join(map(valid_syntax, path.read_text().splitlines()))).body:
        if isinstance(node, ast.ClassDef):
            targets = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign)}
            functions = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            names |= {node.name, *(f"{node.name}.{name}" for name in targets | functions)}
    return names


@pytest.fixture(scope="module")
def public_stub():
    path = PUBLIC_STUBS / "tensorrt_bindings" / "tensorrt.pyi"
    if not path.is_file():
        pytest.skip(f"TensorRT's public stubs are not in {PUBLIC_STUBS}: any make target installs them")
    return path


def test_differences_to_tensorrt_10_13(public_stub):
    names = names_in_stub(public_stub)
    assert {row.name: row.name in names for row in DIFFERENCES} == {row.name: row.in_10 for row in DIFFERENCES}


@pytest.mark.parametrize("row", DIFFERENCES, ids=attrgetter("name"))
def test_differences_to_tensorrt_rtx(row):
    try:
        attrgetter(row.name)(trt)
        found = True
    except AttributeError:
        found = False
    assert found == row.in_rtx


def test_number_of_a_flag_differs(public_stub):
    """So the code never writes it as a literal: 1 << 1 is another flag in 11 and RTX, where STRONGLY_TYPED is 0."""
    assert int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0
    assert "<NetworkDefinitionCreationFlag.STRONGLY_TYPED: 1>" in public_stub.read_text()
