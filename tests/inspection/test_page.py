"""`python -m tutorial_utils inspect`: its text, JSON and page, and what it says about bad input."""

import json
import os
import re
import subprocess
import sys

import onnx
import pytest
from node_models import resize_to_sizes, save_nodes
from onnx import TensorProto, helper
from small_models import residual_model
from test_cli import ROOT

from tutorial_utils.__main__ import main
from tutorial_utils.model import onnx_file

pytest.importorskip("tensorrt_rtx")


def save(path, nodes, inputs, outputs=("y",), opset=17):
    """Write a model of some nodes; inputs by name with their dimensions."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def run(capsys, *arguments):
    """Run the command; return what it printed, after making sure that it went well and printed no error."""
    status = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return out


def failure(capsys, *arguments):
    """Run the command; return its error, after making sure that it is one line and nothing else."""
    status = main(["inspect", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert "Remedy: " in err
    return err


def test_text(fp32_model, capsys):
    out = run(capsys, fp32_model, "--target", "8.9")
    facts = dict(re.split(r"\s{2,}| (?=\d|x )", line, maxsplit=1) for line in out.splitlines()[:5])
    assert facts["inputs"] == "x 1x3x32x32 (sizes guessed, see --shape)"
    assert facts["ONNX nodes"].startswith("9: 2 Conv, 2 Relu, 1 ")
    assert re.search(r"^built by +TensorRT-RTX \S+ for 8\.9$", out, re.MULTILINE)
    assert re.search(r"^activations +(\d+\.\d\d KiB \([\d,]+ bytes\)|\d+\.\d\d MiB .*)$", out, re.MULTILINE)
    assert "\ncomputes in       2 of 2 convolutions compute in FP32 or TF32 (by operand types: 2)\n" in out
    for node in ("conv0", "relu0", "conv1", "norm", "sum", "relu1", "pool", "fc"):
        assert re.search(rf"[:,] {node}(,|$)", out, re.MULTILINE), f"no layer holds {node}"
    assert "changes no bytes: flat" in out
    assert "64.00 KiB fp32 NHWC 1x16x32x32, written by" in out


def test_json_holds_layers_homes_of_nodes_and_sizes(models, capsys):
    found = json.loads(run(capsys, models["fp16"], "--json"))
    kinds = [layer["kind"] for layer in found["report"]["layers"]]
    assert kinds.count("convolution") == 2
    computed = [layer["computed"] for layer in found["report"]["layers"]]
    assert [(one["dtype"], one["evidence"]) for one in computed if one["operation"] == "convolution"] == [
        ("fp16", "operand types")
    ] * 2
    assert found["shapes"] == {"x": [1, 3, 32, 32]}
    assert found["nodes"]["Conv"] == 2
    assert {home["node"] for home in found["node_homes"]} >= {"conv0", "fc"}
    sizes = [tensor["size"] for tensor in found["largest"]]
    assert sizes[0] == 16 * 32 * 32 * 2
    assert sizes == sorted(sizes, reverse=True)


def test_page_is_one_file_that_loads_nothing(models, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert run(capsys, models["int8"], "--html", page) == f"Written: {page}\n"
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"convolution +int8 +operand types", text)) == 2
    assert text.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(src|href) *= *(?!"data:)', text)
    assert not re.search("<script|@import|url\\(", text)
    assert len(re.findall('<img alt="[^"]{20,}"', text)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_shape_option(tmp_path, capsys):
    nodes = [helper.make_node("MatMul", ["a:0", "b"], ["y"], "product")]
    path = save(tmp_path / "two.onnx", nodes, {"a:0": ["n", "k"], "b": ["k", 8]})
    out = run(capsys, path, "--shape", "a:0:4x16", "--shape", "b:16x8")
    assert "inputs            a:0 4x16; b 16x8\n" in out
    assert "128 bytes fp32 row major 4x8" in out


def test_one_name_for_dimensions_of_different_sizes(tmp_path, capsys):
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"], "relu")], {"x": ["?", 3, "?", "?"]})
    assert "x 1x3x224x224" in run(capsys, path)


def test_nodes_without_names_and_shape_nodes(tmp_path, capsys):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Expand", ["r", "s"], ["e"]),
        helper.make_node("Mul", ["e", "e"], ["y"]),
    ]
    out = run(capsys, save(tmp_path / "m.onnx", nodes, {"x": [2, 4]}, opset=12))
    assert "node_of_r" in out
    assert "computed while building, from weights and shapes: node_of_s" in out


def test_text_names_few_of_many_nodes(tmp_path, capsys):
    nodes = [helper.make_node("Identity", [f"t{i}"], [f"t{i + 1}"], f"same{i}") for i in range(20)]
    nodes += [helper.make_node("Relu", ["t20"], ["y"], "relu")]
    out = run(capsys, save(tmp_path / "m.onnx", nodes, {"t0": [2, 4]}))
    assert "same10, same11 and 8 more" in out
    assert "same12" not in out


def test_values_of_an_input_that_is_a_shape(tmp_path, capsys):
    path = resize_to_sizes(tmp_path / "m.onnx")
    out = run(capsys, path, "--shape", "x:1x3x8x8", "--values", "sizes:1,3,16,16")
    assert "inputs            x 1x3x8x8; sizes 4 = 1,3,16,16\n" in out
    assert "fp32 NCHW 1x3x16x16, written by" in out
    assert "--values NAME:1,3,64,64" in failure(capsys, path)
    assert "(4 of sizes), and a profile gives 1 of scale" in failure(capsys, path, "--values", "scale:1")


def test_names_that_a_figure_could_misread(tmp_path, capsys, recwarn):
    """A pair of dollar signs, as TensorRT's own `$$myelin$$`; brackets; characters that no font of the figures has."""
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["a"], "layers[0]/mm$^{$"),
        helper.make_node("Softmax", ["a"], ["y"], "act[1], $\\alpha$"),
    ]
    path = save(tmp_path / "模型$^{$.onnx", nodes, {"x": [8, 8]})
    out = run(capsys, path, "--html", tmp_path / "page.html")
    assert out.startswith("Written")
    assert "<h1>模型$^{$.onnx" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "no layer names\n  none\n" in run(capsys, path)
    assert not [str(one.message) for one in recwarn if "Glyph" in str(one.message)]


def test_a_network_with_a_branch(tmp_path, capsys):
    """Jumps and counters are no kernels; a matrix product is no convolution; the report keeps its layers."""
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["a"], [op], op)], op, [], [helper.make_tensor_value_info(op, 1, [8, 8])]
        )
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["a"], "product"),
        helper.make_node("ReduceSum", ["a"], ["s"], "sum", keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], "condition", to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=branches[0], else_branch=branches[1]),
    ]
    found = json.loads(run(capsys, save(tmp_path / "m.onnx", nodes, {"x": [8, 8]}), "--json"))
    kinds = {layer["type"]: layer["kind"] for layer in found["report"]["layers"]}
    assert {kinds[one] for one in kinds if one.endswith("jmp")} == {"signal/wait/shapes"}
    assert re.search(r"^ +\d+ matrix product ", run(capsys, tmp_path / "m.onnx"), re.MULTILINE)


def test_lengths_that_vary_and_outputs_that_are_shapes(tmp_path, capsys):
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu"), helper.make_node("Shape", ["x"], ["s"], "shape")]
    path = save(tmp_path / "m.onnx", nodes, {"x": ["n", 8]}, ("y", "s"))
    model = onnx.load(path)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    assert "relu" in run(capsys, path)


def test_an_engine_without_kernels(tmp_path, capsys):
    nodes = [helper.make_node("Shape", ["x"], ["y"], "shape")]
    path = save_nodes(tmp_path / "m.onnx", nodes, {"x": (TensorProto.FLOAT, [4])}, output_type=TensorProto.INT64)
    assert "of which 0 are kernels" in run(capsys, path)
    run(capsys, path, "--html", tmp_path / "page.html")


# --- what can be wrong -----------------------------------------------------------------------------------------------


def test_external_data_that_is_not_there(tmp_path, capsys):
    onnx.save(residual_model(), tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    assert "m.onnx has weights in 'w.data', and there is no such file" in failure(capsys, tmp_path / "m.onnx")


def test_unsupported_operator(tmp_path, capsys):
    path = save(tmp_path / "m.onnx", [helper.make_node("MyOwn", ["x"], ["y"], "mine", domain="my")], {"x": [1, 4]})
    assert "MyOwn" in failure(capsys, path)


def test_unknown_target_is_not_blamed_on_a_guessed_shape(tmp_path, capsys):
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"], "relu")], {"x": ["n", "m"]})
    assert "guess" not in failure(capsys, path, "--target", "7.0")


def test_guessed_shape_that_does_not_fit(tmp_path, capsys):
    model = residual_model()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    onnx.save(model, tmp_path / "m.onnx")
    message = failure(capsys, tmp_path / "m.onnx")
    assert "x:1x224x32x32 was a guess" in message
    assert "--shape x:?x?x32x32" in message


@pytest.mark.parametrize("target", [".", "no/such/folder/page.html"])
def test_page_that_cannot_be_written_is_found_before_the_model_is_read(tmp_path, target, capsys):
    assert "can't be written" in failure(capsys, "no model", "--html", tmp_path / target)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_page_in_a_folder_of_somebody_else(fp32_model, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "can't be written" in failure(capsys, fp32_model, "--html", tmp_path / "page.html")


def test_without_paddle_and_notebook_packages(tmp_path):
    """Runs the command as a process in which those packages can't be imported, and closes its output early."""
    blocked = (
        "paddle",
        "paddle2onnx",
        "onnxruntime",
        "IPython",
        "ipykernel",
        "nbformat",
        "nbclient",
        "pandas",
        "sklearn",
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({blocked}))\n")
    onnx_file.save(residual_model(), tmp_path / "m.onnx")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "tutorial_utils", "inspect", str(tmp_path / "m.onnx")]
    page = [*command, "--html", str(tmp_path / "m.html")]
    for arguments in (command, page):
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "m.html").exists()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
