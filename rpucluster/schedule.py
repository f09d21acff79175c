"""Pipeline schedules: in which order each stage passes its microbatches forward and back, and when it updates."""

from collections import deque
from typing import Literal, NamedTuple

Schedule = Literal["gpipe", "1f1b", "interleaved", "async"]


class Turn(NamedTuple):
    """What a stage does with one microbatch; stage and chunk say on which run of layers."""

    action: Literal["forward", "backward", "update"]
    stage: int
    chunk: int
    microbatch: int


def interleave(schedule: Schedule, stages: int, microbatches: int, chunks: int = 1) -> list[Turn]:
    """The turns of one replica in an order in which each finds its inputs; every stage follows its own list of them.

    ``gpipe``: all forwards and then all backwards (Huang et al. 2019).  ``1f1b``: as many forwards as there are stages
    behind it and then one forward, one backward in turn (Narayanan et al. 2019).  ``interleaved``: the same over runs
    of layers, of which stage s has numbers s, s + stages, ... as its `chunks`; it takes `stages` microbatches through
    one chunk and then the same through the next (Narayanan et al. 2021, section 2.2).  ``async``: as ``1f1b``, with an
    update after each backward; the others update after the last turn, which is not among these.

    Raises ValueError for interleaved microbatches that are no multiple of the stages.
    """
    if schedule == "interleaved" and microbatches % stages:
        raise ValueError(f"{microbatches} microbatches cannot be interleaved over {stages} stages")
    queues = [_queue(schedule, stage, stages, microbatches, chunks) for stage in range(stages)]
    runs = stages * chunks
    # microbatches that have gone through each run, in their order; beyond the ends they are always there
    gone = {"forward": [0] * runs, "backward": [0] * runs, "update": [0] * runs}
    order: list[Turn] = []
    while any(queues):
        for queue in queues:
            while queue:
                turn = queue[0]
                action, stage, chunk, microbatch = turn
                run = chunk * stages + stage
                before = run - 1 if action == "forward" else run + 1 if action == "backward" else -1
                if 0 <= before < runs and gone[action][before] <= microbatch:
                    break
                queue.popleft()
                gone[action][run] = microbatch + 1
                order.append(turn)
    return order


def in_flight(schedule: Schedule, stage: int, stages: int, microbatches: int, chunks: int = 1) -> int:
    """Most microbatches of a stage, counted once for each chunk, that have gone forward and not yet back."""
    if schedule == "gpipe":
        return microbatches * chunks
    if schedule == "interleaved":  # a round trip through the stages behind, and p microbatches of each further chunk
        return min(2 * (stages - stage - 1) + (chunks - 1) * stages + 1, microbatches * chunks)
    return min(stages - stage, microbatches)


def _queue(schedule: Schedule, stage: int, stages: int, microbatches: int, chunks: int) -> deque[Turn]:
    total = microbatches * chunks
    ahead = in_flight(schedule, stage, stages, microbatches, chunks)

    def turn(action: Literal["forward", "backward", "update"], number: int) -> Turn:
        if schedule != "interleaved":
            return Turn(action, stage, 0, number)
        group, place = divmod(number, stages * chunks)
        chunk = place // stages
        return Turn(
            action, stage, chunk if action == "forward" else chunks - 1 - chunk, group * stages + place % stages
        )

    queue = deque(turn("forward", number) for number in range(ahead))
    for number in range(total):
        queue.append(turn("backward", number))
        if schedule == "async":
            queue.append(turn("update", number))
        if ahead + number < total:
            queue.append(turn("forward", ahead + number))
    return queue
