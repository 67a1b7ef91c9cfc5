"""Exercises that check themselves: ``check("01.1", my_function)`` says what is right, or names the mistake.

`checking` calls the learner's function and judges it. The room of lesson NN, ``lessonNN``, holds what that lesson alone
measures and draws, ``exercises.py`` with what the exercises of its parts are checked with, and ``NEEDS``, what the doctor
says about each part.
"""

from tutorial_utils.lessons.checking import Result, check

__all__ = ["Result", "check"]
