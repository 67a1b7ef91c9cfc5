"""The TensorRT calls of the notebooks' cells exist in TensorRT 10.13, by its public stubs, and in 10.6.

mypy checks each notebook as one module. What one of the two lacks must stand under a test of the version, such as
``if IS_RTX``. 10.6 has no public stubs: it is 10.13 without the names that its wheel, tensorrt-cu12-bindings 10.6.0,
doesn't have, which a file lists. TensorRT-RTX needs no check: it runs the cells.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from engine.test_tensorrt_api import PUBLIC_STUBS, ROOT, Finding, trt, valid_syntax
from IPython.core.inputtransformer2 import TransformerManager

from tutorial_utils.lessons.lesson03.api_names import CLASSES

NOTEBOOKS = [*(ROOT / "notebooks").glob("*.ipynb"), *(ROOT / "notebooks" / "solutions").glob("*.ipynb")]
NOT_IN_10_6 = set((Path(__file__).parent / "data" / "not_in_tensorrt_10.6.txt").read_text().split())
VERSIONS = ("TensorRT 10.13", "TensorRT 10.6")
CALLS = ("attr-defined", "call-arg")  # what mypy calls such mistakes; types of arguments are wrong in the stubs

# Lines of cells, each with what must be said of it, by version.
PROBES = {
    "builder = trt.Builder(trt.Logger())": {},
    "builder.no_such_call()": dict.fromkeys(VERSIONS, '"Builder" has no attribute "no_such_call"'),
    "def prepare(network, config): config.no_such_option()": dict.fromkeys(VERSIONS, "has no attribute"),
    "def search(config): config.set_flag(trt.BuilderFlag.EDITABLE_TIMING_CACHE)": {"TensorRT 10.6": "EDITABLE_TIMING"},
    "def run(engine): return engine.create_runtime_config()": {"TensorRT 10.6": "create_runtime_config"},
    "if IS_RTX: builder.only_in_rtx()": {},
    "def only(builder):\n    assert IS_RTX, 'a reason'\n    builder.only_in_rtx()": {},
    "print(trt.ComputeCapability.SM75 if IS_RTX else None)": {},
    "trt.NoSuchClass": dict.fromkeys(VERSIONS, "NoSuchClass"),
    "trt.IRuntimeConfig": {"TensorRT 10.6": "IRuntimeConfig"},
    "builder.build_serialized_network(builder.create_network())": dict.fromkeys(VERSIONS, 'argument "config"'),
}
START = "try:\n    import tensorrt_rtx as trt\nexcept ImportError:\n    import tensorrt as trt\nIS_RTX = False"
CONFIG = """[mypy]
follow_imports = skip
ignore_missing_imports = True
check_untyped_defs = True
[mypy-tensorrt.*,tensorrt_bindings.*]
follow_imports = normal
"""


class Checkable(ast.NodeTransformer):
    """Lets `trt` be the module of the stubs, and says what parameters are by their names, where a cell doesn't."""

    def visit_Try(self, node):
        imports = any("tensorrt_rtx" in ast.unparse(one) for one in node.body if isinstance(one, ast.Import))
        return ast.parse("import tensorrt as trt").body if imports else self.generic_visit(node)

    def visit_Assign(self, node):
        loaded = ast.unparse(node) == "trt = flavour.load()"
        constant = ast.unparse(node).startswith("IS_RTX = ")  # a condition of mypy's, see --always-false
        return ast.parse("import tensorrt as trt").body if loaded else None if constant else self.generic_visit(node)

    def visit_Assert(self, node):
        """Mypy knows conditions in `if`, not those that functions for TensorRT-RTX alone begin with."""
        only_rtx = ast.unparse(node.test) in ("IS_RTX", "trt.__name__ == 'tensorrt_rtx'")
        return ast.parse("if not IS_RTX: raise AssertionError").body if only_rtx else node

    def visit_Lambda(self, node):
        return node  # its parameters can't be annotated

    def visit_arg(self, node):
        if node.annotation is None and node.arg in CLASSES:
            node.annotation = ast.Constant(f"trt.{CLASSES[node.arg]}")
        return node


def module(cells):
    """Return cells as one module, and for each of its lines the number of its cell."""
    lines, numbers = ["IS_RTX: bool = bool()"], [0]
    for number, source in enumerate(cells):
        tree = Checkable().visit(ast.parse(TransformerManager().transform_cell(source)))
        text = ast.unparse(ast.fix_missing_locations(tree)).splitlines()
        lines += text
        numbers += [number] * len(text)
    return "\n".join(lines), numbers


def without_names(tree, names):
    """Take names out of a stub: members of classes, and whole classes."""
    for node in [one for one in tree.body if isinstance(one, ast.ClassDef)]:
        missing = {name.partition(".")[2] for name in names if name.startswith(f"{node.name}.")}
        node.body = [one for one in node.body if not missing & {getattr(one, "name", None), _target(one)}]
        node.body = node.body or [ast.Pass()]
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            node.names = [one for one in node.names if one.name not in names]
        if isinstance(node, ast.Assign) and ast.unparse(node).startswith("__all__"):
            node.value.elts = [one for one in node.value.elts if one.value not in names]
    tree.body = [one for one in tree.body if getattr(one, "name", None) not in names and getattr(one, "names", True)]
    return tree


def _target(node):
    return getattr(node.target, "id", None) if isinstance(node, ast.AnnAssign) else None


@pytest.fixture(scope="module")
def checks(tmp_path_factory):
    """By version, a mypy at work on all notebooks and the probes; and the cells of their lines, by module."""
    if not PUBLIC_STUBS.is_dir():
        pytest.skip(f"TensorRT's public stubs are not in {PUBLIC_STUBS}: any make target installs them")
    folder = tmp_path_factory.mktemp("notebooks")
    cells = {
        path: [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"] for path in NOTEBOOKS
    }
    named = {f"{path.parent.name}_{path.stem}": found for path, found in cells.items() if "trt." in "".join(found)}
    numbers = {}
    for name, found in {**named, "probe": [START, *PROBES]}.items():
        text, numbers[name] = module(found)
        (folder / f"{name}.py").write_text(text)
    (folder / "mypy.ini").write_text(CONFIG)
    running = {}
    for version in VERSIONS:
        stubs = tmp_path_factory.mktemp("stubs")
        for path in PUBLIC_STUBS.rglob("*.pyi"):
            tree = ast.parse("\n".join(map(valid_syntax, path.read_text().splitlines())))
            if version == "TensorRT 10.6":
                tree = without_names(tree, NOT_IN_10_6)
            copy = stubs / path.relative_to(PUBLIC_STUBS)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(ast.unparse(tree))
        options = ["--config-file", "mypy.ini", "--no-error-summary", "--cache-dir", stubs / "cache"]
        running[version] = subprocess.Popen(
            [sys.executable, "-m", "mypy", *options, "--always-false", "IS_RTX", *(f"{name}.py" for name in numbers)],
            cwd=folder, env={**os.environ, "MYPYPATH": str(stubs)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    return running, numbers


@pytest.fixture(scope="module", params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def findings(version, checks):
    """What mypy says of calls: notebook, number of the code cell, message."""
    running, numbers = checks
    printed, _ = running[version].communicate()
    assert running[version].returncode in (0, 1), printed
    rows = re.findall(r"^(\w+)\.py:(\d+): error: (.*)  \[([\w-]+)\]$", printed, re.MULTILINE)
    return [
        Finding(name, numbers[name][int(line) - 1], text)
        for name, line, text, code in rows
        if code in CALLS and _of_tensorrt(text)
    ]


def _of_tensorrt(text):
    """Whether a message is about a class of TensorRT's, or about the module; others are the notebook's own."""
    owner = re.match(r'"(?:type\[)?(.*?)\]?" has no attribute', text)
    return owner is None or hasattr(trt, owner[1])


def test_calls_of_the_notebooks_exist(findings):
    wrong = [f"{name}, code cell {cell}: {text}" for name, cell, text in findings if name != "probe"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("probe", PROBES)
def test_a_call_that_a_version_lacks_is_found(probe, version, findings):
    number = list(PROBES).index(probe) + 1
    found = [text for name, cell, text in findings if (name, cell) == ("probe", number)]
    expected = PROBES[probe].get(version)
    assert len(found) == bool(expected), found
    assert expected is None or expected in found[0]
