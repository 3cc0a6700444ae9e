"""What the data plane counts and writes down: counters, histograms and the access log.

Counting happens for every request, so it is plain attribute arithmetic on slotted
objects; merging, quantiles and exposition are left to whoever reads the reports.
"""
