"""The exercises: how a check judges, how a lesson's cells are derived, and the exercises of every lesson themselves."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tutorial_utils.authoring import derive, notebook_form
from tutorial_utils.base.errors import InputError, LessonError
from tutorial_utils.base.lesson_names import import_room, part_of
from tutorial_utils.lessons import check, checking
from tutorial_utils.lessons.checking import Case, Mistake
from tutorial_utils.lessons.lesson01 import exercises

SOLUTIONS = sorted((Path(__file__).parents[2] / derive.SOLUTIONS).glob("*.ipynb"))


# --- how a check judges ----------------------------------------------------------------------------------------------


@pytest.fixture
def doubling(monkeypatch):
    """An exercise 01.0: double a list's first number."""
    mistakes = [Mistake(5, "You add two."), Mistake(None, "You return nothing.")]
    cases = [Case(([3, 4],), 6, "the list 3, 4", mistakes), Case(([-1],), -2, "the list -1")]
    monkeypatch.setitem(exercises.EXERCISES, "01.0", lambda: cases)
    return "01.0"


@pytest.mark.parametrize("answer", [lambda x: 2 * x[0], lambda x: np.float32(2) * x[0], lambda x: x.pop(0) * 2.0])
def test_right_answer(doubling, answer):
    result = check(doubling, answer)
    assert result.passed
    assert str(result) == "Exercise 01.0: right. Your function gives the right answer in all 2 tests."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[0] + 2, "You add two."),
        (lambda x: None, "You return nothing."),
        (lambda x: 7, "For the list 3, 4, your function returned 7, which is not right."),
        (lambda x: np.float64(1 / 3), "For the list 3, 4, your function returned 0.3333, which is not right."),
        (lambda x: 6 if len(x) == 2 else None, "For the list -1, your function returned None."),
        (lambda x: "6", "your function returned str, where int is right."),
        (lambda x: [np.arange(3)], "your function returned list, where int is right."),
        (lambda x: True, "your function returned bool, where int is right."),
        (6, "check takes the function, without parentheses behind it, and got int 6."),
        (lambda: 6, "Your function raised TypeError: "),
    ],
)
def test_wrong_answer(doubling, answer, message):
    result = check(doubling, answer)
    assert result.state == "wrong"
    assert message in result.message


def test_error_of_the_learner_is_one_line_that_says_where(doubling):
    def answer(x):
        """Fail in the third line."""
        return x[10]

    assert check(doubling, answer).message == (
        "Your function raised IndexError: list index out of range, in line 3 of the function."
    )


def test_empty_stub_is_open_and_no_fault(doubling):
    def stub(x):
        raise NotImplementedError

    result = check(doubling, stub)
    assert (result.state, result.passed) == ("open", False)
    assert "Exercise 01.0: not answered yet. Write the function's body" in str(result)


def test_data_of_the_lesson_is_tried_after_the_cases(doubling):
    assert "On the data above it returns 14." in check(doubling, lambda x: 2 * x[0], on=([7],)).message
    data = [7, 8]
    assert check(doubling, lambda x: 2 * x.pop(0), on=(data,)).passed
    assert data == [7, 8]
    assert "raised ZeroDivisionError" in check(doubling, lambda x: 2 * x[0] + 0 / x[0], on=([0],)).message


def test_result_shows_itself_as_text_and_as_html(doubling):
    shown = check(doubling, lambda x: "<b>")._repr_mimebundle_()
    assert shown["text/plain"].startswith("Exercise 01.0: not yet right. For the list")
    assert "background" not in shown["text/html"]  # text and page keep their own colours, light or dark
    wrong = check(doubling, lambda x: 1 / 0 if x else 0, on=([],))
    assert "<p style" in wrong._repr_mimebundle_()["text/html"]
    assert "&lt;" in checking.Result("01.0", "wrong", "a < b")._repr_mimebundle_()["text/html"]


def test_what_is_judged_can_be_something_about_the_returned_value(monkeypatch):
    case = Case((3,), "an even number", "three", [Mistake("zero", "Zero is too easy.")], judged=even_or_odd)
    monkeypatch.setitem(exercises.EXERCISES, "01.0", lambda: [case])
    assert check("01.0", lambda x: x + 1).passed
    assert check("01.0", lambda x: x).message == "For three, your function returned an odd number, which is not right."
    assert check("01.0", lambda x: 0).message == "Zero is too easy."
    assert "your function returned None" in check("01.0", lambda x: None).message


def even_or_odd(number):
    return "zero" if number == 0 else "an odd number" if number % 2 else "an even number"


@pytest.mark.parametrize("exercise", ["01.99", "01a.1", "00.1", "77.1", "nonsense", ""])
def test_unknown_exercise(exercise):
    with pytest.raises(InputError, match="There is no exercise"):
        check(exercise, print)


def test_exercises_of_a_part_are_known_by_its_whole_name(doubling, monkeypatch):
    monkeypatch.setitem(exercises.EXERCISES, "01a.1", exercises.EXERCISES[doubling])
    assert check("01a.1", lambda x: 2 * x[0]).passed
    with pytest.raises(InputError, match=r"Part 01a has 01a\.1\."):
        check("01a.2", print)


# --- how a lesson's cells are derived --------------------------------------------------------------------------------

TASK = "### Exercise 01.1 (easy): Double\n\nDouble x.\n\n<details><summary>Hint</summary>\n\nAdd.\n\n</details>"
SOLVED = 'def double(x: int) -> int:\n    """Return twice x."""\n    # solution\n    y = x\n    return x + y'
STUB = 'def double(x: int) -> int:\n    """Return twice x."""\n    raise NotImplementedError'
CHECK = 'check("01.1", double)'


def exercise_cells(task=TASK, solved=SOLVED, checked=CHECK, tags=("solution",)) -> list[NotebookNode]:
    return [
        new_markdown_cell("## Exercises"),
        new_markdown_cell(task),
        new_code_cell(solved, metadata={"tags": list(tags)}, execution_count=1),
        new_code_cell(checked, execution_count=2, outputs=[new_output("stream", text="right")]),
    ]


@pytest.fixture
def course(tmp_path):
    """Write a lesson and a solution notebook; return how."""

    def write(solved: list[NotebookNode], lesson: list[NotebookNode] | None = None) -> tuple[Path, Path]:
        solutions = tmp_path / "solutions" / "01_lesson.ipynb"
        solutions.parent.mkdir(exist_ok=True)
        notebook_form.write(new_notebook(cells=[new_markdown_cell("# Solutions"), *solved]), solutions)
        path = derive.lesson_of(solutions)
        cells = lesson or [
            new_markdown_cell("# Lesson"),
            new_markdown_cell("## Exercises"),
            new_code_cell("old"),
            new_markdown_cell("## Summary"),
        ]
        notebook_form.write(new_notebook(cells=cells), path)
        return path, solutions

    return write


def test_derived_cells_replace_the_section_and_nothing_else(course):
    lesson, solutions = course(exercise_cells())
    assert derive.main([str(solutions)]) == 0
    sources = [cell.source for cell in notebook_form.read(lesson).cells]
    task = f"{TASK}\n\nWhen you are done, compare with the [solution](solutions/01_lesson.ipynb)."
    assert sources == ["# Lesson", "## Exercises", task, STUB, CHECK, "## Summary"]
    cells = notebook_form.read(lesson).cells
    assert not any(notebook_form.tags(cell) or cell.get("outputs") for cell in cells)
    assert len({cell.id for cell in cells}) == len(cells)


def test_exercises_of_a_part_are_derived(course):
    task, checked = TASK.replace("01.1", "01a.1"), CHECK.replace("01.1", "01a.1")
    _, solutions = course(exercise_cells(task=task, checked=checked))
    assert derive.exercises_in(derive.derived_cells(solutions)) == ["01a.1"]


def test_stub_has_no_empty_line_before_its_body(course):
    lesson, solutions = course(exercise_cells(solved=SOLVED.replace("    # solution", "\n    # solution")))
    derive.main([str(solutions)])
    assert notebook_form.read(lesson).cells[3].source == STUB


def test_executed_cells_keep_their_outputs_when_another_changes(course):
    lesson, solutions = course(exercise_cells())
    derive.main([str(solutions)])
    notebook = notebook_form.read(lesson)
    notebook.cells[4].outputs = [new_output("stream", text="not answered yet")]
    cells = notebook.cells
    course(exercise_cells(solved=SOLVED.replace("twice", "two times")), lesson=cells)
    derive.main([str(solutions)])
    after = notebook_form.read(lesson).cells
    assert "two times" in after[3].source
    assert after[4].outputs[0].text == "not answered yet"


def test_drift_is_found_and_check_writes_nothing(course, capsys):
    lesson, solutions = course(exercise_cells())
    before = lesson.read_bytes()
    assert derive.main(["--check", str(solutions)]) == 1
    assert "its exercises differ" in capsys.readouterr().out
    assert lesson.read_bytes() == before
    derive.main([str(solutions)])
    assert derive.main(["--check", str(solutions)]) == 0


@pytest.mark.parametrize(
    "cells",
    [
        exercise_cells(tags=()),
        exercise_cells(solved=STUB),
        exercise_cells(checked="double(2)"),
        exercise_cells(checked='check("01.2", double)'),
        exercise_cells(task=TASK.replace("<details>", "")),
        exercise_cells(task=TASK.replace("(easy)", "")),
        exercise_cells()[1:],
    ],
)
def test_incomplete_exercise_is_refused(course, cells, capsys):
    lesson, solutions = course(cells)
    before = lesson.read_bytes()
    with pytest.raises(LessonError):
        derive.derived_cells(solutions)
    assert derive.main([str(solutions)]) == 1
    assert str(solutions) in capsys.readouterr().err
    assert lesson.read_bytes() == before


# --- the exercises of the lessons ------------------------------------------------------------------------------------


def solution_cells(path: Path) -> dict[str, str]:
    """Return the source of each solution by the id of its exercise."""
    cells = notebook_form.read(path).cells
    solved = [cell.source for cell in cells if derive.TAG in notebook_form.tags(cell)]
    return dict(zip(derive.exercises_in(cells), solved, strict=True))


def functions(path: Path) -> dict[str, tuple[str, str]]:
    """Return the imports of a solution notebook with the source of each solution, by the id of its exercise."""
    cells = notebook_form.read(path).cells
    lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
    imports = "\n".join(line for line in lines if line.startswith(("import ", "from ")))
    return {exercise: (imports, source) for exercise, source in solution_cells(path).items()}


def defined(imports: str, source: str):
    """Execute the cell of a function and return the function."""
    namespace: dict = {}
    exec(imports, namespace)
    before = set(namespace)
    exec(source, namespace)
    (name,) = set(namespace) - before
    return namespace[name]


REAL = [(path, exercise) for path in SOLUTIONS for exercise in solution_cells(path)]
each_exercise = pytest.mark.parametrize(("path", "exercise"), REAL, ids=[exercise for _, exercise in REAL])


def wrong_answers(exercise: str) -> list:
    module = importlib.import_module(f"lessons.lesson{exercise[:2]}.wrong_answers")
    return module.WRONG_ANSWERS[exercise]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_lesson_has_the_exercises_of_its_solution_notebook(path):
    lesson = derive.lesson_of(path)
    assert not derive.has_drifted(lesson, path), f"Run `python -m tutorial_utils.authoring.derive {path}`."


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_every_check_has_an_exercise(path):
    part = part_of(path)
    known = import_room(part, "exercises").EXERCISES
    assert [exercise for exercise in known if exercise.startswith(f"{part}.")] == list(solution_cells(path))


@each_exercise
def test_solution_is_accepted(path, exercise):
    result = check(exercise, defined(*functions(path)[exercise]))
    assert result.passed, result


@each_exercise
def test_empty_stub_is_met_kindly(path, exercise):
    imports, solution = functions(path)[exercise]
    stub = f"{solution.partition(derive.MARKER)[0]}raise NotImplementedError"
    assert check(exercise, defined(imports, stub)).state == "open"


@each_exercise
def test_known_wrong_answers_are_rejected_each_with_its_message(path, exercise):
    messages = set()
    for answer, words in wrong_answers(exercise):
        result = check(exercise, answer)
        assert result.state == "wrong", answer
        assert words in result.message, answer
        messages.add(result.message)
    assert len(messages) >= 2


@each_exercise
def test_every_named_mistake_has_a_wrong_answer_that_makes_it(path, exercise):
    named = {mistake.message for case in checking.find(exercise)() for mistake in case.mistakes}
    assert named == {check(exercise, answer).message for answer, _ in wrong_answers(exercise)}
