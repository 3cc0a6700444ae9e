"""The commands of ``lbproxy``, one a module: ``NAME``, ``HELP``, ``add_arguments(parser)`` and ``run(args)``."""
