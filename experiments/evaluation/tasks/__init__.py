"""The tasks of `python -m experiments.evaluate`, one module each.

A module has ABOUT, a line for --help; add_arguments(parser); and run(args).
"""
