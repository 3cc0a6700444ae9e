"""Desired state: the configuration and each target's health, published as snapshots.

Every change takes this road (`ControlState.configure`, `ControlState.set_health`), and every
part of the control plane learns of changes from here (`ControlState.subscribe`).
"""

from lbproxy.controlplane.state.desired import SOURCE_STATES, ControlState, SourceStatus
from lbproxy.controlplane.state.journal import Journal
from lbproxy.controlplane.state.overrides import Overrides
from lbproxy.controlplane.state.registration import PROBED_STATES

__all__ = ["PROBED_STATES", "SOURCE_STATES", "ControlState", "Journal", "Overrides", "SourceStatus"]
