"""The second reading of the score: a discrete-event replay that gives every operation its modelled time."""

from rpucluster.timeline.clock import replay as replay
from rpucluster.timeline.order import Arranged as Arranged
from rpucluster.timeline.order import arrange as arrange
from rpucluster.timeline.prices import NOTHING_COUNTED as NOTHING_COUNTED
from rpucluster.timeline.prices import Counted as Counted
from rpucluster.timeline.prices import Energy as Energy
from rpucluster.timeline.timeline import LinkSpan as LinkSpan
from rpucluster.timeline.timeline import Reason as Reason
from rpucluster.timeline.timeline import Timeline as Timeline
