"""Call a learner's function with inputs whose answers are known, and say what is right or which mistake it makes.

Every case is a small input with the answer worked out by hand, and with the answers that typical mistakes lead to. What
is right for the lesson's own data, too large to be worked out by hand, a reference solution says; it is itself tried
with the small inputs.
"""

import copy
import dis
import html
import math
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal

from tutorial_utils.base.errors import InputError
from tutorial_utils.base.lesson_names import import_room

DATA = "the data above"  # the lesson's own data, in words
_TOLERANCE = 1e-6  # relative: for answers that are computed in another order
_POSITIONS = ("first", "second", "third", "fourth")


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
    also_right: Sequence[Any] = ()  # other answers to accept, where several are equally good
    objection: Callable[[Any], str | None] | None = None  # says what else is wrong with an answer, by looking at it


@dataclass(frozen=True)
class Exercise:
    """What the answers to an exercise are checked with."""

    cases: Callable[[], list[Case]]
    on: Callable[..., Case] | None = None  # takes the lesson's data, which `check` got, and returns its case


def by(reference: Callable[..., Any]) -> Callable[..., Case]:
    """Return what makes the case of the lesson's data by a reference solution."""
    return lambda *data: Case(data, reference(*copy.deepcopy(data)), DATA)


@dataclass(frozen=True)
class Result:
    """What came out of a check. As the last value of a cell, it shows itself."""

    exercise: str  # id, such as "01.1"
    state: Literal["right", "wrong", "open"]  # "open" where the function isn't written yet
    message: str  # one or two sentences to the learner; what is code stands in `backticks`, which aren't shown

    @property
    def passed(self) -> bool:
        """Whether the exercise is solved."""
        return self.state == "right"

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {self._heading}. {self.message.replace('`', '')}"

    @property
    def _heading(self) -> str:
        return {"right": "right", "wrong": "not yet right", "open": "not answered yet"}[self.state]

    @property
    def _message_as_html(self) -> str:
        return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(self.message))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        # Only the border has a colour: text in the page's own colour reads well on light and on dark pages.
        colour = {"right": "#1a7f37", "wrong": "#cf222e", "open": "#6e7781"}[self.state]
        return {
            "text/plain": str(self),
            "text/html": (
                f'<p style="border-left: 4px solid {colour}; padding: 2px 10px">'
                f"<b>Exercise {self.exercise}: {self._heading}.</b> {self._message_as_html}</p>"
            ),
        }


def check(exercise: str, answer: Callable[..., Any], *, on: tuple[Any, ...] | None = None) -> Result:
    """Check a learner's function, and say what is right or wrong. It never raises because of what the function does.

    Args:
        exercise: Id of the exercise, such as "01.1".
        answer: The learner's function itself.
        on: Arguments for one more call, on the lesson's own data. What the function returns for them is judged, too.

    Raises:
        InputError: There is no such exercise, or it has no data of the lesson to be judged on.
    """
    found = find(exercise)
    cases = found.cases()
    if on is not None and found.on is None:
        raise InputError(f"Exercise {exercise} can't be judged on other data.", "Leave out `on`.")
    if not callable(answer):
        given = type(answer).__name__
        given += f" {answer!r}" if isinstance(answer, (int, float, str)) else ""
        return Result(exercise, "wrong", f"check takes the function, without parentheses behind it, and got {given}.")
    if _does_nothing(answer):
        return _not_answered(exercise)
    for case in cases:
        returned, failure = _tried(exercise, answer, case)
        if failure is None:
            continue
        if returned is None and failure.state == "wrong" and _always_returns_none(exercise, answer, cases):
            message = "Your function returns None, whatever it is given. Does every way through it end with `return`?"
            return Result(exercise, "wrong", message)
        return failure
    if on is None:
        return Result(exercise, "right", f"Your function gives the right answer in all {len(cases)} tests.")
    case = found.on(*on)
    returned, failure = _tried(exercise, answer, case)
    if failure is not None:
        return failure
    shown = returned if case.judged else _shown(returned)
    message = f"Your function gives the right answer in all {len(cases)} tests, and for {DATA}: {shown}."
    return Result(exercise, "right", message)


def find(exercise: str) -> Exercise:
    """Return what an exercise is checked with.

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


def _tried(exercise: str, answer: Callable[..., Any], case: Case) -> tuple[Any, Result | None]:
    """Return what the function returns, or what is judged of it, and what to tell the learner if it isn't right."""
    returned, failure = _call(exercise, answer, case.arguments)
    kind = type(returned).__name__
    try:
        if failure is None and returned is not None:
            returned = case.judged(returned) if case.judged else _plain(returned)
        if failure is None and not any(_same(returned, right) for right in (case.answer, *case.also_right)):
            failure = Result(exercise, "wrong", _mistake(returned, case))
    except Exception as error:  # of a list that holds itself, a number beyond float, or an object's own methods
        why = _in_one_line(error, answer)
        message = f"For {case.what}, your function returned {kind}, which can't be compared with an answer: {why}."
        failure = Result(exercise, "wrong", message)
    return returned, failure


def _call(exercise: str, answer: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Result | None]:
    """Return what the function returns, or what to tell the learner about what it raises."""
    try:
        return answer(*copy.deepcopy(arguments)), None
    except NotImplementedError:
        return None, _not_answered(exercise)
    except (Exception, SystemExit) as error:  # whatever a learner's code can raise
        return None, Result(exercise, "wrong", f"Your function raised {_in_one_line(error, answer)}.")


def _not_answered(exercise: str) -> Result:
    hint = "Write the function's body in place of `raise NotImplementedError`, run its cell, then this one."
    return Result(exercise, "open", hint)


def _does_nothing(answer: Callable[..., Any]) -> bool:
    """Whether a function's body is `pass`, `...`, `return None` or no more than a docstring: not written yet."""
    code = _code(answer)
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")] if code else []
    returning = ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE")
    return bool(steps) and all(step.opname in returning and step.argval is None for step in steps)


def _always_returns_none(exercise: str, answer: Callable[..., Any], cases: Sequence[Case]) -> bool:
    """Whether it says nothing about a mistake that a function returns None: it does so for each of several inputs."""
    outcomes = (_call(exercise, answer, case.arguments) for case in cases)
    return len(cases) > 1 and all(returned is None and failure is None for returned, failure in outcomes)


def _code(answer: Callable[..., Any]) -> CodeType | None:
    """Return the bytecode of a function; None for another callable, such as a class."""
    code = getattr(answer, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _in_one_line(error: BaseException, answer: Callable[..., Any]) -> str:
    """Return type and message of an exception, and the line of the learner's function that it came from."""
    try:
        text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    except Exception:  # of a class of the learner's own
        text = ""
    code = _code(answer)
    place = (code.co_filename, code.co_name) if code else None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if (frame.filename, frame.name) == place]
    where = f", in line {lines[-1] - code.co_firstlineno + 1} of the function" if lines else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def _mistake(returned: Any, case: Case) -> str:
    """Say what is wrong with an answer: the mistake, if the case knows it, else how it differs from the right one."""
    for mistake in case.mistakes:
        if _same(returned, mistake.answer):
            return mistake.message
    if case.objection is not None and (objection := case.objection(returned)):
        return objection
    start = f"For {case.what}, your function returned"
    if returned is None:
        return f"{start} None. Does every way through it end with `return`?"
    if case.judged is not None:
        return f"{start} {returned}, which is not right."
    if _kind(returned) != _kind(case.answer):
        return f"{start} {type(returned).__name__}, where {_name_of_type(case.answer)} is right."
    return f"{start} {_shown(returned)}, {_difference(returned, case.answer)}."


def _difference(returned: Any, right: Any) -> str:
    """Say how an answer differs from the right one of the same kind, without giving that one away."""
    if _is_number(right) and returned != right and not math.isnan(returned):
        return f"which is too {'large' if returned > right else 'small'}"
    if isinstance(right, tuple) and len(returned) != len(right):
        return f"whose number of parts is {len(returned)} and should be {len(right)}"
    if isinstance(right, tuple):
        wrong = [i for i, (one, other) in enumerate(zip(returned, right, strict=True)) if not _same(one, other)]
        if len(wrong) == len(right) > 1:
            return "of whose parts none is right"
        named = " and ".join(_POSITIONS[i] if i < len(_POSITIONS) else f"{i + 1}th" for i in wrong)
        return f"whose {named} {'part is' if len(wrong) == 1 else 'parts are'} not right"
    if isinstance(right, (list, dict)):
        extra, missing = len(_left(returned, right)), len(_left(right, returned))
        if not extra and not missing:
            return "whose entries are in another order" if isinstance(right, list) else "in which a value is not right"
        found = [(extra, "too many"), (missing, "missing")]
        counts = [f"{n} {'entry' if n == 1 else 'entries'} {what}" for n, what in found if n]
        return f"with {' and '.join(counts)}"
    return "which is not right"


def _left(entries: Any, others: Any) -> list[Any]:
    """Return the entries that remain when each of the others takes away one that is equal to it."""
    left = list(entries)
    for other in others:
        equal = [i for i, entry in enumerate(left) if _same(entry, other)]
        if equal:
            del left[equal[0]]
    return left


def _same(returned: Any, wanted: Any) -> bool:
    """Whether two values are the same to a learner, to whom a tuple is as good as a list."""
    if _is_number(returned) and _is_number(wanted):
        return math.isclose(returned, wanted, rel_tol=_TOLERANCE)
    if isinstance(returned, (list, tuple)) and isinstance(wanted, (list, tuple)):
        return len(returned) == len(wanted) and all(map(_same, returned, wanted))
    if isinstance(returned, dict) and isinstance(wanted, dict):
        return returned.keys() == wanted.keys() and all(_same(returned[key], wanted[key]) for key in wanted)
    return type(returned) is type(wanted) and bool(returned == wanted)


def _plain(value: Any) -> Any:
    """Return what an answer consists of as Python's own types, where it is made of numpy's or pandas's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(one) for key, one in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _kind(value: Any) -> Any:
    kinds = {tuple: "sequence", list: "sequence"}
    return "number" if _is_number(value) else kinds.get(type(value), type(value))


def _name_of_type(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _is_number(value: Any) -> bool:
    """Whether this is a single number; a truth value is none."""
    return hasattr(value, "__float__") and not isinstance(value, bool | type)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
