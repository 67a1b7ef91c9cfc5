"""Wrong answers to the exercises of lesson 04, each with words from the message that its check must give."""

from lessons.lesson04 import laboratory_answers

from tutorial_utils.lessons.lesson04 import fault_lab

RIGHT = {
    "04.1": "overflow",
    "04.2": "normalization",
    "04.3": "tolerance",
    "04.4": "layout",
    "04.5": "division",
    "04.6": "memory",
    "04.7": "engine",
}
AGAINST = {
    "overflow": "becomes infinite",
    "division": "whose inputs are finite",
    "layout": "not only their places",
    "normalization": "mean and spread of the two feeds are the same",
    "memory": "C-contiguous",
    "tolerance": "larger than rounding",
    "engine": "no engine is to blame",
    "scale": "Run the file without graph optimizations",
}
IN_NO_TENSOR = ("tolerance", "engine")


def always(cause, tensor=None):
    return lambda case: (cause, tensor)


def last_tensor(cause):
    return lambda case: (cause, case.tensors[-1])


def sound_input(cause):
    """Return a wrong answer: an input that is as it should be."""
    return lambda case: (cause, next(name for name in case.reference_feeds if name != case.answer[1]))


def divisor(cause):
    """Return a wrong answer: what is divided by, in place of what comes out."""
    return lambda case: (cause, case.answer[1].replace("attention", "mean_eps"))


def other_causes(right):
    return [(always(cause), words) for cause, words in AGAINST.items() if cause != right]


def other_tensors(exercise):
    cause = RIGHT[exercise]
    if cause in IN_NO_TENSOR:
        return [(last_tensor(cause), "It lies in no tensor")]
    return [
        (always(cause), "In which tensor"),
        (last_tensor(cause), "because one before it is"),
        (sound_input(cause), "this tensor is as it should be"),
        (always(*fault_lab.case(int(exercise[-1])).answer), "fits the case above only"),
    ]


WRONG_ANSWERS = {exercise: other_causes(right) + other_tensors(exercise) for exercise, right in RIGHT.items()}
WRONG_ANSWERS["04.5"].append((divisor("division"), "finite still"))
WRONG_ANSWERS["04.7"].append((always("engine"), "You blame the engine of every FP8 file"))
WRONG_ANSWERS |= laboratory_answers.WRONG
RIGHT_ANSWERS = laboratory_answers.OTHER_RIGHT
