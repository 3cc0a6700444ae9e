"""Passive health: what the traffic itself says of the targets (outlier ejection, anomaly mitigation).

Workers report what they count about every second, and at once a target whose requests fail one after
the other.  The supervisor compares the targets of a group and decides, once for all workers, so that a
limit on how many are out at a time holds everywhere; workers learn of it as of any change, in the next snapshot.
"""
