# `conda activate` sources this: it puts TensorRT's libraries on the loader path, under the names that Paddle opens.
# Before Python starts, since a process reads the loader path only once. See tutorial_utils/machine/tensorrt_libraries.py.
if TENSORRT_LIBRARIES=$("$CONDA_PREFIX/bin/python" -I -m tutorial_utils.machine.tensorrt_libraries 2>/dev/null); then
    export TENSORRT_LIBRARIES
    export LD_LIBRARY_PATH="$TENSORRT_LIBRARIES${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
else
    unset TENSORRT_LIBRARIES
fi
