"""Exercises that check themselves: ``check("01.1", my_function)`` says what is right, or names the mistake.

The parts: `checking` (calls the learner's function and judges it), `lessonNN` (what each exercise of lesson NN is
checked with), `derive` (writes the exercise cells of a lesson from its solution notebook).
"""

from tutorial_utils.lessons.checking import Result, check

__all__ = ["Result", "check"]
