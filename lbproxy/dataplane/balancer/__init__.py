"""From a target group to the target that takes a request, and those to try after it.

Pure: what is shared with other workers comes in as an array of cells; randomness, clock and what was
observed of the targets as arguments.  A balancer is made anew whenever the state of its group changes.
"""

from lbproxy.dataplane.balancer.base import ALGORITHMS, OBSERVING, Balancer, Cells, Circumstances, make_balancer
from lbproxy.dataplane.balancer.first import First
from lbproxy.dataplane.balancer.hashing import Hashing, Maglev, Rendezvous
from lbproxy.dataplane.balancer.leastoutstanding import LeastOutstandingRequests
from lbproxy.dataplane.balancer.observation import Observation
from lbproxy.dataplane.balancer.roundrobin import RoundRobin
from lbproxy.dataplane.balancer.twochoices import LeastTime, RandomTwo
from lbproxy.dataplane.balancer.weighted import WeightedRandom

__all__ = [
    "ALGORITHMS",
    "OBSERVING",
    "Balancer",
    "Cells",
    "Circumstances",
    "First",
    "Hashing",
    "LeastOutstandingRequests",
    "LeastTime",
    "Maglev",
    "Observation",
    "RandomTwo",
    "Rendezvous",
    "RoundRobin",
    "WeightedRandom",
    "make_balancer",
]
