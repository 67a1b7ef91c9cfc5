"""Where results go wrong first, by how much, and what helps.

What `python -m tutorial_utils debug` calls, in the order of its work: `model_inputs` (what the model is run on),
`rounding` (a model that rounds as a GPU does), `tensor_errors` (how far each tensor is off), `faults` (which nodes are
to blame), `conversions` (the model with some of them kept in FP32), `diagnosis` (which these are) and `diagnosis_page`.
Lesson 04 also calls `polygraphy_cli`, `remedies` and `scaling`, which makes a fault; `residual_stream` makes or mends
that of transformers.
"""
