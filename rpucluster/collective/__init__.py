"""What collective algorithms put on links, and how long and how much energy that takes.

A collective is a sequence of rounds; in a round every member sends at most a few messages, and the next round starts
when the slowest has arrived.  Each message costs alpha-beta: the latencies of its hops, its own serialization, and,
where messages share a link that knows contention, the wait for the others.  Rounds that repeat are priced once, which
makes the cost a closed form in the number of rounds; `expand` writes all of them out.  The arithmetic of a reduction
is not charged here.
"""

from rpucluster.collective.cost import Chosen, CollectiveCost, Hold, cost, send_cost
from rpucluster.collective.expansion import Send, expand
from rpucluster.collective.moves import ALGORITHMS, Algorithm, CollectiveKind

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Chosen",
    "CollectiveCost",
    "CollectiveKind",
    "Hold",
    "Send",
    "cost",
    "expand",
    "send_cost",
]
