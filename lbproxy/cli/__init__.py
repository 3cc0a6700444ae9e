"""The commands of ``lbproxy``: each module has NAME, HELP, ``add_arguments(parser)`` and ``run(args) -> int``."""
