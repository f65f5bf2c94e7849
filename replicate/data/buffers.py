"""Memory for batches that is used again when a batch is gone.

A batch of paper scale is 44 MB. Asked for anew each time, the system maps and clears every page of it, which can take
as long as reading the records. Whoever holds a batch, or any view of it, holds its memory: it is used again only when
nobody does.
"""

import collections
import math
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike

Allocate = Callable[[tuple[int, ...], DTypeLike], np.ndarray]  # (shape, dtype) -> an array of any content
KEPT = 4  # pieces of memory that wait for use: a batch being read, two ahead, one in use


class Buffers:
    """Gives arrays; may be used by several threads."""

    def __init__(self) -> None:
        self._free: collections.deque[bytearray] = collections.deque(maxlen=KEPT)

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array of this shape and type, of any content."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return np.empty(shape, dtype)
        try:
            buffer = self._free.popleft()
        except IndexError:
            buffer = bytearray()
        if len(buffer) < size:
            buffer = bytearray(size)
        # The base of every view that is made of it: numpy stops there, as its own memory is no array's.
        root = np.frombuffer(buffer, np.uint8, size)
        weakref.finalize(root, self._free.append, buffer).atexit = False
        return root.view(dtype).reshape(shape)
