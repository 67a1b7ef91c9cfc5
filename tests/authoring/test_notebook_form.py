import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tutorial_utils.authoring import notebook_form
from tutorial_utils.base.errors import LessonError


def code(source, *outputs, count=1, **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def printed(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def written(folder, *cells):
    path = folder / "lesson.ipynb"
    notebook_form.write(new_notebook(cells=list(cells)), path)
    return path


def test_executed_notebook_in_canonical_layout_has_no_violations(tmp_path):
    path = written(
        tmp_path,
        new_markdown_cell("# Title"),
        code("print(1)", printed("1\n")),
        code("", count=None),
        code("1 / 2", new_output("execute_result", {"text/plain": "0.5"}, execution_count=2), count=2),
    )
    assert notebook_form.violations(path) == []
    assert notebook_form.main([str(path)]) == 0


def test_violation_names_notebook_and_cell(tmp_path):
    path = written(
        tmp_path, new_markdown_cell("# Title"), code("import sys\nsys.stderr.write('x')", printed("x", "stderr"))
    )
    assert notebook_form.violations(path) == [f"{path}: cell 2 (`import sys`) prints to stderr: x."]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([code("a", count=None)], "execution count none, not 1"),
        ([code("a", count=2), code("b", count=3)], "execution count 2, not 1"),
        ([code("a"), code("b", count=1)], "execution count 1, not 2"),
        ([code("a", new_output("error", ename="KeyError", evalue="'x'", traceback=[]))], "ends with KeyError"),
        ([code("a", printed("saved /home/kim/engine.plan\n"))], "a path of one machine: /home/kim/engine.plan"),
        ([code("a", printed("at '/Users/kim/x'"))], "a path of one machine: /Users/kim/x"),
        ([code("a", new_output("display_data", {"text/html": "<b>/tmp/x.onnx</b>"}))], "one machine: /tmp/x.onnx"),
        ([code("a", new_output("display_data", {"application/json": {"k": "/tmp/x"}}))], "one machine: /tmp/x"),
        ([code("a", new_output("display_data", {"text/plain": "<Engine at 0x7f3b>"}))], "memory address"),
        ([code("a", new_output("stream", text="2026-11-27 07:29:18 [INFO] saved\n"))], "time of day"),
        ([code('Image("images/net.png")')], "takes images/net.png for a file beside the notebook"),
        ([code("open('../README.md')")], "takes ../README.md for a file beside the notebook"),
    ],
)
def test_content_that_is_not_committed(tmp_path, cells, expected):
    (violation,) = notebook_form.violations(written(tmp_path, *cells))
    assert expected in violation


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](missing.ipynb#x)", "cell 1 (`[a](missing.ipynb#x)`) links to missing.ipynb, and there is no such file"),
        ("![a](images/missing.svg)", "links to images/missing.svg"),
        ('<img width="560" src="images/missing.png" alt="a">', "links to images/missing.png"),
        ("half of $2^{-11}$", "has the formula $2^{-11}$"),
    ],
)
def test_text_that_no_reader_can_follow(tmp_path, text, expected):
    (violation,) = notebook_form.violations(written(tmp_path, new_markdown_cell(text)))
    assert expected in violation


def test_text_that_a_reader_can_follow(tmp_path):
    (tmp_path / "a page.md").touch()
    text = "[a](a%20page.md#b) [c](https://x.org/missing) [d](#e) `[f](g)` `$HOME/$USER`\n```\n$x $y\n```\n5 $"
    assert notebook_form.violations(written(tmp_path, new_markdown_cell(text))) == []


def test_traceback_of_an_expected_exception_may_show_no_path_either(tmp_path):
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=["\x1b[32m/home/kim/\x1b[0mlib.py"])
    (violation,) = notebook_form.violations(written(tmp_path, code("a", error, tags=["raises-exception"])))
    assert "/home/kim/lib.py" in violation


@pytest.mark.parametrize(
    "text", ["images/tmp/x", "https://example.org/home/page", "a/b", "../tmp/x", "~/home/x", "0x7f3b"]
)
def test_text_that_only_looks_like_a_path_or_address(tmp_path, text):
    assert notebook_form.violations(written(tmp_path, code("a", printed(text)))) == []


def test_cell_for_a_gpu_may_stay_unexecuted(tmp_path):
    path = written(tmp_path, code("a"), code("b", count=None, tags=["gpu"]), code("c", count=2))
    assert notebook_form.violations(path) == []


def test_fix_repairs_the_layout_and_keeps_the_content(tmp_path, capsys):
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "my-env", "display_name": "mine"}, "widgets": {}},
        "cells": [
            {**new_markdown_cell("# Title"), "id": "kept"},
            {**code("a", printed("1\n"), tags=["gpu"], execution={"iopub.execute_input": "now"}), "id": "kept"},
            {**code("b", count=2), "id": "cell-1"},
        ],
    }
    path = tmp_path / "lesson.ipynb"
    path.write_text(json.dumps(notebook, indent=4), encoding="utf-8")

    assert notebook_form.main([str(path)]) == 1
    problems = capsys.readouterr().out
    for expected in ("metadata other than", "cell 2 (`a`) has no id of its own", "isn't kept: execution"):
        assert expected in problems

    assert notebook_form.main(["--fix", str(path)]) == 0
    fixed = nbformat.read(path, as_version=4)
    assert fixed.metadata == notebook_form.METADATA
    assert [cell.id for cell in fixed.cells] == ["kept", "cell-2", "cell-1"]
    assert fixed.cells[1].metadata == {"tags": ["gpu"]}
    assert [cell.source for cell in fixed.cells] == ["# Title", "a", "b"]
    assert fixed.cells[1].outputs == [printed("1\n")]


def test_fix_gives_ids_to_a_notebook_of_format_4_4(tmp_path):
    old = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{**new_markdown_cell("x")}]}
    del old["cells"][0]["id"]
    path = tmp_path / "lesson.ipynb"
    path.write_text(json.dumps(old), encoding="utf-8")
    assert "format 4.4 instead of 4.5" in notebook_form.violations(path)[0]
    assert notebook_form.main(["--fix", str(path)]) == 0
    assert nbformat.read(path, as_version=4).cells[0].id == "cell-1"


def test_other_indentation_is_a_violation(tmp_path):
    path = written(tmp_path, code("a"))
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=2), encoding="utf-8")
    (violation,) = notebook_form.violations(path)
    assert "as nbformat writes it" in violation


@pytest.mark.parametrize("text", ["not JSON", "[]", "{}", '{"nbformat": 3}', '{"nbformat": 4, "cells": [{"id": 1}]}'])
def test_file_that_is_no_notebook(tmp_path, text):
    path = tmp_path / "lesson.ipynb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LessonError, match=r"isn't a Jupyter notebook"):
        notebook_form.read(path)
    assert notebook_form.main(["--fix", str(path)]) == 1
    assert path.read_text(encoding="utf-8") == text


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LessonError, match=r"absent\.ipynb can't be read"):
        notebook_form.read(tmp_path / "absent.ipynb")
