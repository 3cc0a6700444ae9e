"""From a target group to the target that takes a request, and those to try after it.

Pure: what is shared with other workers comes in as an array of cells, randomness as an
argument.  A balancer is made anew whenever the state of its group changes.
"""

from lbproxy.dataplane.balancer.base import ALGORITHMS, Balancer, Cells, make_balancer
from lbproxy.dataplane.balancer.leastoutstanding import LeastOutstandingRequests
from lbproxy.dataplane.balancer.roundrobin import RoundRobin
from lbproxy.dataplane.balancer.weighted import WeightedRandom

__all__ = [
    "ALGORITHMS",
    "Balancer",
    "Cells",
    "LeastOutstandingRequests",
    "RoundRobin",
    "WeightedRandom",
    "make_balancer",
]
