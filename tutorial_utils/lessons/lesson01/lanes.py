"""Lesson 01, asynchrony: an engine on several CUDA streams at once. Needs a GPU and PyCUDA.

A lane is a runner of the shared engine, with a stream, an execution context and buffers of its own, so that batches in
different lanes don't wait for each other: while one is computed, the next is copied in and the one before copied out.
"""

import time
from contextlib import ExitStack

import numpy as np
import pycuda.driver as cuda

from tutorial_utils.engine import Engine
from tutorial_utils.runners.tensorrt import TensorRTRunner, primary_context

STAGES = ("copy in", "engine", "copy out")


class Lanes:
    """The orders in which batches can take turns on the lanes of an engine. It raises what `TensorRTRunner` raises.

    Args:
        engine: The engine, with one input.
        images: The images of a batch, float32 ``[N, ...]``, N being the largest batch to run.
        count: Number of lanes.
        cuda_graph: Replay the engine as a CUDA graph: see `TensorRTRunner`.

    Attributes:
        runners: A runner for each lane.
    """

    def __init__(self, engine: Engine, images: np.ndarray, count: int, *, cuda_graph: bool = False):
        self._images = images.copy()  # pageable memory; the runners hold the same images in pinned memory
        with ExitStack() as stack:
            stack.enter_context(primary_context())
            self.runners: list[TensorRTRunner] = []
            for source in [engine, *[None] * (count - 1)]:
                runner = TensorRTRunner(source or self.runners[0], cuda_graph=cuda_graph)
                self.runners.append(stack.enter_context(runner))
            self.use(len(images))
            self._open = stack.pop_all()

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def use(self, batch: int) -> None:
        """Let every lane work on the first images only."""
        for runner in self.runners:
            (self._input,) = runner.inputs
            runner.fill({self._input: self._images[:batch]})

    def one_by_one(self, batches: int) -> None:
        """Run batches with a synchronization after every stage, as code does that was written step by step."""
        lane = self.runners[0]
        for _ in range(batches):
            for stage in (lane.copy_in, lane.run, lane.copy_out):
                stage()
                lane.stream.synchronize()

    def on_streams(self, streams: int, batches: int, pinned: bool = True) -> None:
        """Run batches on several lanes in turn, and wait only for a lane that is used again."""
        for number in range(batches):
            lane = self.runners[number % streams]
            lane.stream.synchronize()  # its last batch is complete, so its buffers are free
            self._enqueue_copy(lane, pinned)
            lane.run()
            lane.copy_out()
        for lane in self.runners[:streams]:
            lane.stream.synchronize()

    def _enqueue_copy(self, lane: TensorRTRunner, pinned: bool) -> None:
        if pinned:
            lane.copy_in()
        else:  # a copy from pageable memory goes through a buffer of the driver, and the host waits
            images = self._images[: len(lane.host[self._input])]
            cuda.memcpy_htod_async(lane.device[self._input], images, lane.stream)

    def logits(self) -> list[np.ndarray]:
        """Wait for every lane, and return its last logits, float32 ``[batch, classes]``."""
        return [next(iter(lane.results().values())) for lane in self.runners]

    def stage_times(self, batches: int) -> dict[str, float]:
        """Time the stages of one lane, one batch after the other.

        Returns:
            Median milliseconds of each of `STAGES` by CUDA events, and of "enqueue": how long the host is busy with
            handing the engine to the GPU.
        """
        lane = self.runners[0]
        times: dict[str, list[float]] = {name: [] for name in (*STAGES, "enqueue")}
        events = [cuda.Event() for _ in range(len(STAGES) + 1)]
        for _ in range(batches):
            events[0].record(lane.stream)
            lane.copy_in()
            events[1].record(lane.stream)
            start = time.perf_counter()
            lane.run()
            times["enqueue"].append(1000 * (time.perf_counter() - start))
            events[2].record(lane.stream)
            lane.copy_out()
            events[3].record(lane.stream)
            lane.stream.synchronize()
            for name, begin, end in zip(STAGES, events[:-1], events[1:], strict=True):
                times[name].append(begin.time_till(end))
        return {name: round(float(np.median(values)), 4) for name, values in times.items()}
