"""The exercises: how a check judges, how a lesson's cells are derived, and the exercises of every lesson themselves."""

import copy
import importlib
from collections import Counter, OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lessons.lesson01 import library_answers
from lessons.lesson05 import wrong_answers as lesson05
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tutorial_utils.authoring import derive, notebook_form
from tutorial_utils.base.errors import InputError, LessonError
from tutorial_utils.base.lesson_names import import_room, part_of
from tutorial_utils.lessons import check, checking
from tutorial_utils.lessons.checking import Case, Exercise, Mistake, by
from tutorial_utils.lessons.lesson01 import exercises, exercises_engine, exercises_model
from tutorial_utils.model import networks, onnx_file

SOLUTIONS = sorted((Path(__file__).parents[2] / derive.SOLUTIONS).glob("*.ipynb"))


# --- how a check judges ----------------------------------------------------------------------------------------------


@pytest.fixture
def doubling(monkeypatch):
    """An exercise 01.0: double a list's first number."""
    mistakes = [Mistake(5, "You add two."), Mistake(None, "You stop at two numbers.")]
    cases = [Case(([3, 4],), 6, "the list 3, 4", mistakes), Case(([-1],), -2, "the list -1")]
    monkeypatch.setitem(exercises.EXERCISES, "01.0", Exercise(lambda: cases, by(lambda x: 2 * x.pop(0))))
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
        (lambda x: None if len(x) == 2 else -2, "You stop at two numbers."),
        (lambda x: print(end=""), "Your function returns None, whatever it is given."),
        (lambda x: 7, "For the list 3, 4, your function returned 7, which is too large."),
        (lambda x: np.float64(1 / 3), "For the list 3, 4, your function returned 0.3333, which is too small."),
        (lambda x: float("nan"), "For the list 3, 4, your function returned nan, which is not right."),
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


def stub(x):
    """Double it."""
    raise NotImplementedError


def stub_with_pass(x):
    """Double it."""
    pass


def stub_with_dots(x): ...


@pytest.mark.parametrize("answer", [stub, stub_with_pass, stub_with_dots, lambda x: None])
def test_empty_stub_is_open_and_no_fault(doubling, answer):
    result = check(doubling, answer)
    assert (result.state, result.passed) == ("open", False)
    assert "Exercise 01.0: not answered yet. Write the function's body" in str(result)


def returning(answer, monkeypatch, *, right):
    """Check a function that returns this where that is right, once as a case and once as the lesson's data."""
    one, two = Case((1,), right, "one"), Case((2,), 0, "two")
    monkeypatch.setitem(exercises.EXERCISES, "01.0", Exercise(lambda: [two], lambda x: one))
    on_data = check("01.0", lambda x: answer if x == 1 else 0, on=(1,))
    monkeypatch.setitem(exercises.EXERCISES, "01.0", Exercise(lambda: [one, two]))
    assert check("01.0", lambda x: answer if x == 1 else 0).passed == on_data.passed
    return on_data


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (np.str_("conv"), "conv"),
        (np.True_, True),
        (np.int64(3), 3),
        (3.0, 3),
        (("a", "b"), ["a", "b"]),
        (["a", "b"], ("a", "b")),
        (np.array(["a", "b"]), ["a", "b"]),
        ([np.str_("a"), np.float32(2)], ("a", 2)),
        (([1, 2], {"x": (3, 4)}), ((1, 2), {"x": [3, 4]})),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(b=1, a=2), {"a": 2, "b": 1}),
    ],
)
def test_answers_that_are_the_same_to_a_learner(monkeypatch, answer, right):
    assert returning(answer, monkeypatch, right=right).passed


@pytest.mark.parametrize(
    ("answer", "right", "words"),
    [
        (1, True, "int, where bool is right"),
        ({"a", "b"}, ["a", "b"], "set, where list is right"),
        ("ab", ["a", "b"], "str, where list is right"),
        (["b", "a"], ["a", "b"], "whose entries are in another order"),
        (["a", "a", "b"], ["a", "b"], "with 1 entry too many"),
        (["c", "d"], ["a", "b", "c"], "with 1 entry too many and 2 entries missing"),
        (("a", 1), ("a", 2), "whose second part is not right"),
        (("b", 1), ("a", 2), "of whose parts none is right"),
        (("b", 1, 1), ("a", 1, 2), "whose first and third parts are not right"),
        (("a",), ("a", 2), "whose number of parts is 1 and should be 2"),
        ({"a": 1}, {"a": 2}, "in which a value is not right"),
        ({"a": 1}, {"b": 1, "c": 1}, "with 1 entry too many and 2 entries missing"),
        ("conv", "relu", "which is not right"),
    ],
)
def test_message_says_what_differs_and_not_what_is_right(monkeypatch, answer, right, words):
    result = returning(answer, monkeypatch, right=right)
    assert not result.passed
    assert result.message.startswith("For one, your function returned ")
    assert words in result.message


def test_data_of_the_lesson_is_judged_after_the_cases(doubling):
    message = check(doubling, lambda x: 2 * x[0], on=([7],)).message
    assert message == "Your function gives the right answer in all 2 tests, and for the data above: 14."
    data = [7, 8]
    assert check(doubling, lambda x: 2 * x.pop(0), on=(data,)).passed
    assert data == [7, 8]
    assert "raised ZeroDivisionError" in check(doubling, lambda x: 2 * x[0] + 0 / x[0], on=([0],)).message
    message = check(doubling, lambda x: min(2 * x[0], 10), on=([7],)).message
    assert message == "For the data above, your function returned 10, which is too small."


def test_data_of_the_lesson_needs_a_judge(doubling, monkeypatch):
    monkeypatch.setitem(exercises.EXERCISES, doubling, Exercise(exercises.EXERCISES[doubling].cases))
    with pytest.raises(InputError, match="can't be judged on other data"):
        check(doubling, lambda x: 2 * x[0], on=([7],))


def test_several_answers_can_be_right(monkeypatch):
    case = Case((1,), 3, "one", also_right=[4])
    monkeypatch.setitem(exercises.EXERCISES, "01.0", Exercise(lambda: [case]))
    assert [check("01.0", lambda x, y=y: y).passed for y in (3, 4, 5)] == [True, True, False]


def test_result_shows_itself_as_text_and_as_html(doubling):
    shown = check(doubling, lambda x: "<b>")._repr_mimebundle_()
    assert shown["text/plain"].startswith("Exercise 01.0: not yet right. For the list")
    assert "background" not in shown["text/html"]  # text and page keep their own colours, light or dark
    wrong = check(doubling, lambda x: 1 / 0 if x else 0, on=([],))
    assert "<p style" in wrong._repr_mimebundle_()["text/html"]
    shown = checking.Result("01.0", "wrong", "`a < b` and `c`")._repr_mimebundle_()
    assert "<code>a &lt; b</code> and <code>c</code>" in shown["text/html"]
    assert shown["text/plain"].endswith("a < b and c")


def test_what_is_judged_can_be_something_about_the_returned_value(monkeypatch):
    case = Case((3,), "an even number", "three", [Mistake("zero", "Zero is too easy.")], judged=even_or_odd)
    monkeypatch.setitem(exercises.EXERCISES, "01.0", Exercise(lambda: [case], lambda x: case))
    message = check("01.0", lambda x: x + 1, on=(3,)).message
    assert message == "Your function gives the right answer in all 1 tests, and for the data above: an even number."
    assert check("01.0", lambda x: x + 1).passed
    assert check("01.0", lambda x: x).message == "For three, your function returned an odd number, which is not right."
    assert check("01.0", lambda x: 0).message == "Zero is too easy."
    assert "your function returned None" in check("01.0", lambda x: print(end="")).message


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

TASK = (
    "### Exercise 01.1 (easy, 5 minutes): Double\n\nDouble x.\n\n<details><summary>Hint</summary>\n\nAdd.\n\n</details>"
)
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
    assert list(derive.exercise_minutes(derive.derived_cells(solutions))) == ["01a.1"]


def test_links_to_files_lead_there_from_the_lesson_too(course):
    links = "[a](../00_start.ipynb), [b](../../TROUBLESHOOTING.md) and [c](https://x.org/../y)."
    lesson, solutions = course(exercise_cells(task=TASK.replace("Double x.", links)))
    derive.main([str(solutions)])
    expected = "[a](00_start.ipynb), [b](../TROUBLESHOOTING.md) and [c](https://x.org/../y)."
    assert expected in notebook_form.read(lesson).cells[2].source


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
        exercise_cells(task=TASK.replace(" (easy, 5 minutes)", "")),
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
    return dict(zip(derive.exercise_minutes(cells), solved, strict=True))


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


@pytest.fixture(autouse=True)
def small_classifier(monkeypatch, request):
    """Where a judge looks at the course's classifier, let it be a small model, which needs no training."""
    monkeypatch.setattr(networks, "quick", lambda *_: request.getfixturevalue("models"))


REAL = [(path, exercise) for path in SOLUTIONS for exercise in solution_cells(path)]
each_exercise = pytest.mark.parametrize(("path", "exercise"), REAL, ids=[exercise for _, exercise in REAL])


def wrong_answers(exercise: str) -> list:
    module = importlib.import_module(f"lessons.lesson{exercise[:2]}.wrong_answers")
    return module.WRONG_ANSWERS[exercise]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_lesson_has_the_exercises_of_its_solution_notebook(path):
    lesson = derive.lesson_of(path)
    assert derive.updated(lesson, path) is None, f"Run `python -m tutorial_utils.authoring.derive {path}`."


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
    named = {mistake.message for case in checking.find(exercise).cases() for mistake in case.mistakes}
    assert named == {check(exercise, answer).message for answer, _ in wrong_answers(exercise)}


@each_exercise
def test_data_of_the_lesson_is_judged_where_it_is_given(path, exercise):
    checks = [cell.source for cell in notebook_form.read(path).cells if f'check("{exercise}"' in cell.source]
    assert ["on=" in source for source in checks] == [checking.find(exercise).on is not None]


@each_exercise
def test_judge_of_the_lesson_s_data_agrees_with_the_answers_worked_out_by_hand(path, exercise):
    found = checking.find(exercise)
    for case in found.cases() if found.on else []:
        judged = found.on(*copy.deepcopy(case.arguments))
        assert (judged.answer, judged.also_right or ()) == (case.answer, ()), case.what
        assert judged.what == checking.DATA


@each_exercise
def test_function_that_is_wrong_only_on_the_data_of_the_lesson_is_refused(path, exercise):
    found = checking.find(exercise)
    if found.on is None:
        pytest.skip("it has no data of its own")
    solution, cases = defined(*functions(path)[exercise]), found.cases()
    calls = []

    def forgetful(*arguments):
        calls.append(arguments)
        return solution(*arguments) if len(calls) <= len(cases) else "something else"

    result = check(exercise, forgetful, on=cases[0].arguments)
    assert len(calls) == len(cases) + 1
    assert result.state == "wrong"
    assert result.message.startswith(f"For {checking.DATA}, your function returned ")
    assert check(exercise, solution, on=cases[0].arguments).passed


@each_exercise
def test_other_right_answers_are_accepted(path, exercise):
    module = importlib.import_module(f"lessons.lesson{exercise[:2]}.wrong_answers")
    for answer in getattr(module, "RIGHT_ANSWERS", {}).get(exercise, []):
        result = check(exercise, answer)
        assert result.passed, result


@pytest.mark.parametrize(("exercise", "answer", "words"), [*library_answers.UNNAMED, *lesson05.UNNAMED])
def test_what_a_library_refuses_is_told(exercise, answer, words):
    result = check(exercise, answer)
    assert result.state == "wrong"
    assert words in result.message


@pytest.mark.parametrize(
    ("outputs", "verdict"),
    [
        ("y norm0", "right"),
        ("y", "what it gave before"),
        ("y conv0", "another tensor"),
        ("norm0", "lacks an output"),
        ("y norm0 conv0", "others that nobody asked for"),
    ],
)
def test_data_centre_tensorrt_is_asked_for_the_outputs_of_the_loaded_engine(monkeypatch, tmp_path, outputs, verdict):
    from tutorial_utils.engine import tensorrt

    path = str(onnx_file.save(exercises_model.small_classifier(), tmp_path / "model.onnx"))
    modes = {"x": tensorrt.trt.TensorIOMode.INPUT, **dict.fromkeys(outputs.split(), tensorrt.trt.TensorIOMode.OUTPUT)}
    loaded = SimpleNamespace(
        num_io_tensors=len(modes), get_tensor_name=list(modes).__getitem__, get_tensor_mode=modes.__getitem__
    )
    monkeypatch.setattr(tensorrt, "IS_RTX", False)
    monkeypatch.setattr(tensorrt, "load_plan", lambda plan, log: loaded)
    judged = exercises_engine.on_data(path, "norm0")
    found = judged.judged((b"plan", tensorrt.MessageLog()))
    messages = {judged.answer: "right", **{mistake.answer: mistake.message for mistake in judged.mistakes}}
    assert verdict in messages[found]


def test_first_overflow_is_judged_by_the_order_of_the_nodes(fp32_model):
    model = onnx_file.load(fp32_model)
    names = [node.output[0] for node in model.graph.node]
    data = (model, np.full((1, 3, 32, 32), 1e6, np.float32))
    solution = defined(*next(functions(path)["01e.2"] for path, exercise in REAL if exercise == "01e.2"))
    assert repr(names[0]) in check("01e.2", solution, on=data).message
    message = check("01e.2", lambda model, x: names[1] if len(x[0]) == 3 else solution(model, x), on=data).message
    assert message == "That tensor overflows, too, but another one does so before it, in the order of the nodes."


def level(*rounds):
    return exercises.Measurement(tuple((ms,) * 10 for ms in rounds), 2.0, 11, True, 64)


def test_real_differences_leave_open_what_sound_methods_judge_differently():
    random = np.random.default_rng(0).normal(0, 0.1, 10)
    noise = random - np.median(random)
    rows = {
        "a": level(*[1.0] * 10),
        "certain": level(*(2 + noise)),
        "none": level(*(1.001 + noise)),
        "unsure": level(*(1.07 + noise)),
    }
    judged = exercises.EXERCISES["01e.3"].on(rows, "a")
    assert sorted([judged.answer, *judged.also_right]) == [["certain"], ["certain", "unsure"]]


def test_file_that_an_earlier_answer_wrote_is_no_answer(fp32_model, tmp_path):
    solution = defined(*next(functions(path)["01e.4"] for path, exercise in REAL if exercise == "01e.4"))
    target = str(tmp_path / "int8.onnx")
    data = (str(fp32_model), np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8), target)
    assert check("01e.4", solution, on=data).passed
    lazy = check("01e.4", lambda *given: target if given[2] == target else solution(*given), on=data)
    assert "There is no ONNX file at the path" in lazy.message
