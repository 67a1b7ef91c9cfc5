"""ResNet-50 in every library and precision, at three shapes: a matrix that is measured row by row.

A room beside the road: nothing imports it, and `measure.experiment` finds it by name. It holds `cells` (what is
measured, and of what a row consists), `files` (models, images, reference), a module for each library, `measuring` (the
same for all of them), `matrix` (the experiment).
"""
