"""From ``lb.ini`` to the model: read, checked as a whole, every mistake named with its line.

`load.load` is the way in; the options with their defaults and ranges are one table, `options.table`.
"""
