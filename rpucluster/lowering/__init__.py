"""From a plan to a program: `lower(plan, job)`.

Values are named after what they are, so that the two readers agree: layer l takes the activation l-1, sums
the partial results of its tiles, and gives the activation l; backward it takes the error l and gives the
error l-1.  Where a rank does not hold what it needs, the ranks gather the value; where the next layer sits on
another stage, the value is sent from rank to rank.
"""

from rpucluster.lowering.programs import lower as lower
