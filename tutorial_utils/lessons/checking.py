"""Call a learner's function with inputs whose answers are known, and say what is right or which mistake it makes.

A check knows answers, not solutions: every case is a small input with the answer worked out by hand, and with the
answers that typical mistakes lead to.
"""

import copy
import html
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutorial_utils.base.errors import InputError
from tutorial_utils.base.lesson_names import import_room

_TOLERANCE = 1e-6  # relative: for answers that are computed in another order


@dataclass(frozen=True)
class Mistake:
    """An answer that a typical mistake leads to."""

    answer: Any  # what a function with this mistake returns
    message: str  # what the mistake is, in one or two sentences to the learner, without the right answer


@dataclass(frozen=True)
class Case:
    """One input to try a learner's function with, and what it should return."""

    arguments: tuple[Any, ...]  # the function gets a copy
    answer: Any
    what: str  # the input in words, for the message about a mistake without a name: "For <what>, ..."
    mistakes: Sequence[Mistake] = ()
    judged: Callable[[Any], str] | None = None  # says what is compared instead: of a returned model, what it does


@dataclass(frozen=True)
class Result:
    """What came out of a check. As the last value of a cell, it shows itself."""

    exercise: str  # id, such as "01.1"
    state: Literal["right", "wrong", "open"]  # "open" where the function isn't written yet
    message: str  # one or two sentences to the learner

    @property
    def passed(self) -> bool:
        """Whether the exercise is solved."""
        return self.state == "right"

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {self._heading}. {self.message}"

    @property
    def _heading(self) -> str:
        return {"right": "right", "wrong": "not yet right", "open": "not answered yet"}[self.state]

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        # Only the border has a colour: text in the page's own colour reads well on light and on dark pages.
        colour = {"right": "#1a7f37", "wrong": "#cf222e", "open": "#6e7781"}[self.state]
        return {
            "text/plain": str(self),
            "text/html": (
                f'<p style="border-left: 4px solid {colour}; padding: 2px 10px">'
                f"<b>Exercise {self.exercise}: {self._heading}.</b> {html.escape(self.message)}</p>"
            ),
        }


def check(exercise: str, answer: Callable[..., Any], *, on: tuple[Any, ...] | None = None) -> Result:
    """Check a learner's function, and say what is right or wrong. It never raises because of what the function does.

    Args:
        exercise: Id of the exercise, such as "01.1".
        answer: The learner's function itself.
        on: Arguments for one more call, on the lesson's own data. What a right function returns for them is shown.

    Raises:
        InputError: There is no such exercise.
    """
    cases = find(exercise)()
    if not callable(answer):
        given = type(answer).__name__
        given += f" {answer!r}" if isinstance(answer, (int, float, str)) else ""
        return Result(exercise, "wrong", f"check takes the function, without parentheses behind it, and got {given}.")
    for case in cases:
        returned, failure = _call(exercise, answer, case.arguments)
        if failure is None and case.judged is not None and returned is not None:
            returned = case.judged(returned)
        if failure is None and not _same(returned, case.answer):
            failure = Result(exercise, "wrong", _mistake(returned, case))
        if failure is not None:
            return failure
    message = f"Your function gives the right answer in all {len(cases)} tests."
    if on is not None:
        returned, failure = _call(exercise, answer, on)
        if failure is not None:
            return failure
        message += f" On the data above it returns {_shown(returned)}."
    return Result(exercise, "right", message)


def find(exercise: str) -> Callable[[], list[Case]]:
    """Return the function that makes the cases of an exercise.

    Raises:
        InputError: There is no such exercise.
    """
    part = exercise.partition(".")[0]
    room = import_room(part, "exercises")
    known = [known for known in room.EXERCISES if known.startswith(f"{part}.")] if room else []
    if exercise not in known:
        form = 'Ids look like "01.1" or "01a.1": part, then exercise.'
        remedy = f"Part {part} has {', '.join(known)}." if known else form
        raise InputError(f"There is no exercise {exercise!r}.", remedy)
    return room.EXERCISES[exercise]


def _call(exercise: str, answer: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Result | None]:
    """Return what the function returns, or what to tell the learner about what it raises."""
    try:
        return answer(*copy.deepcopy(arguments)), None
    except NotImplementedError:
        hint = "Write the function's body in place of `raise NotImplementedError`, run its cell, then this one."
        return None, Result(exercise, "open", hint)
    except Exception as error:  # whatever a learner's code can raise
        return None, Result(exercise, "wrong", f"Your function raised {_in_one_line(error, answer)}.")


def _in_one_line(error: Exception, answer: Callable[..., Any]) -> str:
    """Return type and message of an exception, and the line of the learner's function that it came from."""
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    code = getattr(answer, "__code__", None)
    place = (code.co_filename, code.co_name) if code else None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if (frame.filename, frame.name) == place]
    where = f", in line {lines[-1] - code.co_firstlineno + 1} of the function" if lines else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _mistake(returned: Any, case: Case) -> str:
    for mistake in case.mistakes:
        if _same(returned, mistake.answer):
            return mistake.message
    start = f"For {case.what}, your function returned"
    if returned is None:
        return f"{start} None. Does every way through it end with `return`?"
    if case.judged is not None:
        return f"{start} {returned}, which is not right."
    if type(returned).__name__ != type(case.answer).__name__ and not (_is_number(returned) and _is_number(case.answer)):
        wanted = "None" if case.answer is None else type(case.answer).__name__
        return f"{start} {type(returned).__name__}, where {wanted} is right."
    return f"{start} {_shown(returned)}, which is not right."


def _same(returned: Any, wanted: Any) -> bool:
    if _is_number(returned) and _is_number(wanted):
        return math.isclose(returned, wanted, rel_tol=_TOLERANCE)
    if type(returned) is not type(wanted):
        return False
    try:
        return bool(returned == wanted)
    except ValueError:  # arrays inside a list have no single truth value
        return False


def _is_number(value: Any) -> bool:
    """Whether this is a single number, numpy's included; a truth value is none."""
    return hasattr(value, "__float__") and not isinstance(value, bool) and getattr(value, "ndim", 0) == 0


def _shown(value: Any) -> str:
    value = value.item() if hasattr(value, "item") and _is_number(value) else value  # of numpy
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
