"""What the exercises of lesson 04 are checked with.

`exercises_repair` judges the FP16 files of 04c.1 and 04d.3, `exercises_faults` what the others of 04d return.
"""

from tutorial_utils.lessons.checking import Exercise
from tutorial_utils.lessons.lesson04 import exercises_faults, exercises_repair

EXERCISES = {
    "04c.1": Exercise(exercises_repair.repair, exercises_repair.repair_on_data),
    "04d.1": Exercise(exercises_faults.first_wrong, exercises_faults.first_wrong_on_data),
    "04d.2": Exercise(exercises_faults.part, exercises_faults.part_on_data),
    "04d.3": Exercise(exercises_repair.rescale, exercises_repair.rescale_on_data),
    "04d.4": Exercise(exercises_faults.recalibrate, exercises_faults.recalibrate_on_data),
}
