"""The commands of `lbproxy`.

Each command is a module with ``NAME``, ``HELP``, ``add_arguments(parser)`` and
``run(arguments) -> int``, the exit status.
"""
