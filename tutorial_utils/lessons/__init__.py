"""Exercises that check themselves: ``check("01.1", my_function)`` says what is right, or names the mistake.

`checking` calls the learner's function and judges it. The room ``lessonNN`` holds what lesson NN alone measures and
draws, ``exercises.py`` with what its exercises are checked with, and ``NEEDS``: what each part needs of the machine.
"""

from tutorial_utils.lessons.checking import Result, check

__all__ = ["Result", "check"]
