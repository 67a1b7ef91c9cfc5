# `conda deactivate` sources this: it takes back what the script of the same name in activate.d has set.
if [ -n "${TENSORRT_LIBRARIES:-}" ]; then
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH#"$TENSORRT_LIBRARIES"}"
    LD_LIBRARY_PATH="${LD_LIBRARY_PATH#:}"
    [ -n "$LD_LIBRARY_PATH" ] || unset LD_LIBRARY_PATH
    unset TENSORRT_LIBRARIES
fi
