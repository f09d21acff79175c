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
    done: set[tuple[str, int, int]] = set()
    order: list[Turn] = []
    while any(queues):
        for queue in queues:
            while queue:
                turn = queue[0]
                run = turn.chunk * stages + turn.stage
                before = run - 1 if turn.action == "forward" else run + 1
                if (
                    turn.action != "update"
                    and 0 <= before < runs
                    and (turn.action, before, turn.microbatch) not in done
                ):
                    break
                queue.popleft()
                done.add((turn.action, run, turn.microbatch))
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
