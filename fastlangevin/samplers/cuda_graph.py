"""Warms up and captures updates as CUDA graphs. A capture that fails leaves no trace."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from contextlib import suppress

import torch

__all__ = ["CudaGraphs"]

# The first call compiles kernels and chooses algorithms, TorchScript specialises after the second, and the last one is
# watched for what must wait for the device.
WARM_UPS = 3


class CudaGraphs:
    """The graphs of one chain: on one memory pool, as they are replayed in turn and none leaves a result there."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def warm(self, update: Callable[[], None]) -> None:
        """Makes an update as often as it needs before a capture, on another stream.

        Raises:
            RuntimeError: it waits for the device, which a capture would not survive.
        """
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS - 1):
                    update()
                self._watch(update)
        finally:
            current.wait_stream(self.stream)

    def _watch(self, update: Callable[[], None]) -> None:
        # The mode is the process's: raising at once would do so in other threads too.
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                update()
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for each in seen:
            if "synchronizing CUDA operation" in str(each.message):
                raise RuntimeError(f"it waits for the device ({each.filename}, line {each.lineno})")

    def capture(self, update: Callable[[], None]) -> Callable[[], None]:
        """The update as a graph: what is returned replays it on the current stream.

        Raises:
            Exception: what the update or the capture raised; streams, allocator and generator are as they were.
        """
        # An invalid capture leaves PyTorch's generator counting as if it still went on: a copy takes its place.
        generator = torch.cuda.default_generators[self.device.index]
        spare = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()  # what the warm-up took is in another pool
        # A collected graph or event of somebody else's would be destroyed on this thread, which a capture forbids.
        collects = gc.isenabled()
        gc.disable()
        try:
            # torch.cuda.graph would stay on its stream where ending the capture raises.
            with torch.cuda.stream(self.stream):
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    update()
                except BaseException:
                    with suppress(RuntimeError):
                        self._end(graph, generator, spare)
                    raise
                self._end(graph, generator, spare)
        finally:
            if collects:
                gc.enable()
        return graph.replay

    def _end(self, graph: torch.cuda.CUDAGraph, generator: torch.Generator, spare: torch.Generator) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            # PyTorch up to 2.13 leaves at the error, before the allocator is told that the capture is over.
            for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
                tell = getattr(torch._C, name, None)
                if tell is not None:
                    with suppress(RuntimeError):
                        tell(self.device.index, self.pool)
            generator.graphsafe_set_state(spare)
            raise

    def close(self) -> None:
        """Waits for the replays under way, so that their graphs may be destroyed."""
        torch.cuda.current_stream(self.device).synchronize()
