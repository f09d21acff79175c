"""Pipeline schedules: in which order each stage passes its microbatches forward and back."""


def interleave(schedule: str, stages: int, microbatches: int) -> list[tuple[str, int, int]]:
    """The (action, stage, microbatch) of one replica in an order in which every action finds its inputs.

    Each stage follows its own list: all forwards and then all backwards (``gpipe``), or as many forwards as
    there are stages behind it and then one backward, one forward in turn (``1f1b``).
    """
    queues = []
    for stage in range(stages):
        ahead = microbatches if schedule == "gpipe" else min(stages - stage, microbatches)
        queue = [("forward", m) for m in range(ahead)]
        for m in range(microbatches):
            queue.append(("backward", m))
            if ahead + m < microbatches:
                queue.append(("forward", ahead + m))
        queues.append(queue)
    done: set[tuple[str, int, int]] = set()
    order = []
    while any(queues):
        for stage, queue in enumerate(queues):
            while queue:
                action, m = queue[0]
                before = ("forward", stage - 1, m) if action == "forward" else ("backward", stage + 1, m)
                if 0 <= before[1] < stages and before not in done:
                    break
                queue.pop(0)
                done.add((action, stage, m))
                order.append((action, stage, m))
    return order
