"""What a lesson asks of its reader, counted on small notebooks whose counts can be checked by eye."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tutorial_utils.authoring import budget, notebook_form
from tutorial_utils.base import paths

PICTURE = new_output("display_data", {"image/png": "AAAA", "text/plain": "a picture", "text/html": "<img src='x'>"})
TABLE = new_output("display_data", {"text/html": "<table></table>"})
HINT = "<details><summary>Hint</summary>\n\nAdd one.\n\n</details>"
TASK = f"### Exercise 01.1 (easy, 12 minutes): Double\n\nDouble x.\n\n{HINT}"


def code(source, *outputs):
    return new_code_cell(source, outputs=list(outputs))


def printed(text):
    return new_output("stream", name="stdout", text=text)


def lesson():
    return new_notebook(
        cells=[
            new_markdown_cell("# A lesson\n\nSix more words are below it."),
            code("import onnx\n\nmodel = onnx.load('m.onnx')", PICTURE),
            code("print(model.ir_version)", printed("8\n")),
            code(""),
            new_markdown_cell("## Exercises"),
            code("graph = onnx.load('m.onnx').graph", TABLE),
            new_markdown_cell(TASK),
            new_markdown_cell(TASK.replace("01.1 (easy, 12 minutes)", "01.2 (hard, 15 minutes)")),
            new_markdown_cell("## The end"),
            code("1 + 1", PICTURE),
            code("print('The lesson took 6 s.')", printed("right\nThe lesson took 6 s.\n")),
        ]
    )


def test_a_lesson_is_counted():
    counted = budget.of_notebook(lesson())
    assert counted == budget.Budget(
        cells=10,
        words=8 + 1 + 9 + 9 + 2,
        lines=6,
        longest=3,
        figures=2,
        code_cells=4,
        library_cells=1,
        exercise_minutes=27,
        run_seconds=6.0,
    )
    assert counted.library_share == 0.25
    assert counted.minutes == pytest.approx(29 / 200 + (6 * 5 + 2 * 30 + 6) / 60 + 27)


@pytest.mark.parametrize(
    ("markdown", "seen"),
    [
        ("Two words.", 2),
        ("# A *title* - here", 3),
        ("a `code span` and b", 3),
        ("one\n\n```python\nfour words of code\n```\n\ntwo", 2),
        ("one <!-- not seen --> two", 2),
        ("<details><summary>Hint</summary>\n\nfolded text\n\n- too\n\n</details>\n\nseen", 2),
        ("<details><summary>A hint</summary>bare text</details>", 2),
        ("| a | b |\n|:--|:--|\n| c | `d` |", 3),
        ("see [a link](https://example.org/x y)", 5),
        ("[a link](x.ipynb#part)", 2),
        ("![a text](x.png)", 0),
        ("2.5 times, 100 %", 3),
    ],
)
def test_words_are_those_that_a_reader_sees(markdown, seen):
    assert budget.words(markdown) == seen


def test_pictures_in_the_prose_are_figures():
    cell = new_markdown_cell("![a](a.png)\n\n<img src='b.png'>\n\n<!-- ![c](c.png) -->\n\n`<img>`")
    assert budget.figures(cell) == 2


def test_run_time_that_was_measured_now_counts_before_the_recorded_one():
    assert budget.of_notebook(lesson(), run_seconds=30).run_seconds == 30
    assert budget.of_notebook(new_notebook(cells=[code("1")])).run_seconds is None


def test_limits_are_marked(tmp_path, capsys, monkeypatch):
    long_cell = code("\n".join(["1"] * 21))
    within, above = tmp_path / "01_within.ipynb", tmp_path / "02_above.ipynb"
    notebook_form.write(lesson(), within)
    cells = [new_markdown_cell("word " * 1501), *[code("1")] * 59, long_cell, *lesson().cells]
    notebook_form.write(new_notebook(cells=cells), above)
    assert budget.main([str(within), str(above)]) == 0
    printed = capsys.readouterr().out
    row = {line.split()[0]: line for line in printed.splitlines() if line.strip()[:3] in ("01_", "02_")}
    assert "!" not in row["01_within"]
    assert row["02_above"].count("!") == 4  # cells, words, longest, minutes
    assert "Above a limit (!): 1 of 2." in printed

    monkeypatch.setitem(budget.LIMITS, "minutes", 12)
    assert budget.of_notebook(lesson()).above() == ["minutes"]


def test_limit_itself_is_allowed():
    cells = [new_markdown_cell("word " * 1500), *[code("1")] * 58, code("\n".join(["1"] * 20))]
    assert budget.of_notebook(new_notebook(cells=cells)).above() == []


def test_what_is_no_notebook_is_said(tmp_path, capsys, monkeypatch):
    assert budget.main([str(tmp_path / "missing.ipynb")]) == 1
    assert "can't be read" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert budget.main([]) == 1
    assert "There are no notebooks in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "least"), [("02a", 0.6), ("02b", 0.6), ("02c", 0.6), ("03a", 0.6), ("03b", 0.6), ("05b", 0.5)]
)
def test_most_cells_call_the_libraries(name, least):
    (path,) = (paths.ROOT / "notebooks").glob(f"{name}_*.ipynb")
    assert budget.of_notebook(notebook_form.read(path)).library_share >= least
