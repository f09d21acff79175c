"""What this machine can do at best: memory per thread, and the random numbers of our generator.

    python benchmarks/floors.py

Prints JSON.  Other benchmarks put these numbers beside what they measured.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba
import numpy as np

from rpucluster.kernels.cpu_random import fill_normals, philox

BYTES = 1 << 29
REPEATS = 5


@numba.njit(nogil=True, fastmath=True)
def _sum(values: Any) -> Any:
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    return total


@numba.njit(nogil=True)
def _copy(target: Any, values: Any) -> None:
    for i in range(values.size):
        target[i] = values[i]


@numba.njit(nogil=True)
def _touch(values: Any, count: int, seed: int) -> None:
    """Add 1 to one number of each of `count` cache lines in random order, each independent of the others."""
    lines = np.uint64(values.size // 16)
    state = np.uint64(seed)
    for _ in range(count):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        line = ((state >> np.uint64(33)) * lines) >> np.uint64(31)
        values[line * np.uint64(16)] += np.float32(1)


@numba.njit(nogil=True)
def _words(out: Any, blocks: int) -> None:
    for i in range(blocks):
        w0, w1, w2, w3 = philox(np.uint64(i), np.uint64(1), np.uint64(0), np.uint64(0), np.uint64(7), np.uint64(9))
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = w0, w1, w2, w3


def _best(works: Sequence[Callable[[], Any]]) -> float:
    """The shortest of some repeats, in seconds, of every work at the same time, each in a thread of its own."""
    times = []
    with ThreadPoolExecutor(len(works)) as pool:
        for _ in range(REPEATS + 1):
            began = time.perf_counter()
            for done in [pool.submit(work) for work in works]:
                done.result()
            times.append(time.perf_counter() - began)
    return min(times[1:])  # the first compiles


def floors() -> dict[str, Any]:
    """Bandwidths in GB/s (10^9 bytes), the rest in nanoseconds; by number of threads where threads matter.

    `copy` counts the bytes read and the bytes written.  `random_line_ns` is to read, change and later write back
    one cache line in random order in 512 MB; random numbers are written to memory in the cache.
    """
    found: dict[str, Any] = {"cores": os.cpu_count(), "read_GB_per_s": {}, "copy_GB_per_s": {}, "random_line_ns": {}}
    values, target = np.ones(BYTES // 4, np.float32), np.zeros(BYTES // 4, np.float32)
    size, touches = BYTES / 1e9, 1 << 22
    for threads in sorted({1, os.cpu_count() or 1}):
        parts, targets = np.array_split(values, threads), np.array_split(target, threads)
        found["read_GB_per_s"][threads] = size / _best([partial(_sum, part) for part in parts])
        copies = [partial(_copy, *pair) for pair in zip(targets, parts, strict=True)]
        found["copy_GB_per_s"][threads] = 2 * size / _best(copies)
        seconds = _best([partial(_touch, part, touches, i) for i, part in enumerate(parts)])
        found["random_line_ns"][threads] = seconds / (touches * threads) * 1e9
    words, normals = np.empty(1 << 14, np.uint32), np.empty(1 << 14, np.float32)
    blocks, often = len(words) // 4, 200
    seconds = _best([lambda: [_words(words, blocks) for _ in range(often)]])
    found["random_word_ns"] = seconds / (often * len(words)) * 1e9
    seconds = _best([lambda: [fill_normals(normals, 0, blocks, 7, 9, 1, 0) for _ in range(often)]])
    found["normal_ns"] = seconds / (often * len(normals)) * 1e9
    return found


if __name__ == "__main__":
    print(json.dumps(floors(), indent=2))
