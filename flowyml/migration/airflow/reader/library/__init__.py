"""The builtins and the parts of the standard library that DAG files use when they are parsed, as natives.

Functions that depend on the world (the clock, randomness, the network, processes) are left out: their results are
unknown. From the bottom up: ``natives`` (how a function of Python becomes a native), a module for each subject with a
table ``NAMES`` of its own, ``built_in`` (the builtins) and ``standard`` (the standard library by import path).
"""
