import time

from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from tutorial_utils.authoring import course
from tutorial_utils.base.progress import PROGRESS_VARIABLE, bar, still_working


def test_a_bar_in_a_live_notebook_leaves_no_stderr_behind():
    """JupyterLab shows an empty one as a red bar."""
    code = "from tutorial_utils.base.progress import bar\nfor _ in bar(range(3), description='epoch'): pass"
    notebook = new_notebook(cells=[new_code_cell(code)])
    environment = course.kernel_environment() | {PROGRESS_VARIABLE: "1"}
    NotebookClient(notebook).execute(env=environment)
    outputs = notebook.cells[0].outputs
    assert {output.name for output in outputs} == {"stdout"}
    assert "epoch" in outputs[0].text  # it was there to be seen
    assert outputs[-1].text.endswith("\r")  # and was wiped out


def test_a_bar_is_silent_where_output_goes_to_a_file(capfd):
    assert [*bar(range(2), description="epoch")] == [0, 1]
    assert capfd.readouterr() == ("", "")


def test_a_long_call_gives_signs_of_life(capsys):
    with still_working("TensorRT builds", first=0.05, every=0.05):
        time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert lines[0] == "TensorRT builds, for 0 s so far."
    with still_working("TensorRT builds"):
        pass
    assert capsys.readouterr().err == ""
