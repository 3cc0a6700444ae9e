"""Every option there is: one table, in parts.

A module (for target groups, a package) has the options of each kind of section; `table` puts them together.  An option
that differs by protocol has a row for each group of protocols.
"""
