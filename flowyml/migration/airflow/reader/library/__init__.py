"""The builtins and the parts of the standard library that DAG files use when they are parsed, as natives.

What looks at the world (the clock, randomness, the network, processes) is not here: its results are unknown.
From the bottom up: ``natives`` (how a function of Python becomes a native), a module for each subject with a table
``NAMES`` of its own, ``built_in`` (the builtins) and ``standard`` (the standard library by import path).
"""
