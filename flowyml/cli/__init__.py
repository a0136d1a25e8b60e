"""The command ``flowyml``: run pipelines, look at runs, keep schedules.

======  ==================================================================
exit    meaning
======  ==================================================================
0       it went well
1       the run failed, timed out, or was cancelled; or the disk is full
2       wrong usage or input: the command, the pipeline, a parameter
3       the engine does not answer, or its extra is not installed
4       the run, schedule, or orchestrator does not exist
70      a bug in FlowyML itself; ``FLOWYML_DEBUG=1`` shows where
124     waiting took longer than ``--timeout``; the run goes on
130     Ctrl-C
======  ==================================================================

Data goes to standard output, everything else to standard error, also what a pipeline prints; only ``run`` without
``--json`` lets it through. On a terminal, control characters are shown, also those that steps print. With ``--json``
there is one JSON document on standard output, and an error is a JSON object on standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    import gc

    gc.disable()  # objects created before a command begins are never garbage
    try:
        from flowyml.cli.app import read
        from flowyml.cli.errors import exit_code_of
        from flowyml.cli.output import escape_what_cannot_be_encoded
        from flowyml.core.progress_output import guard_terminals, release_terminals

        escape_what_cannot_be_encoded()
        guard_terminals()
        words = list(sys.argv[1:] if arguments is None else arguments)
        try:
            return exit_code_of(read, words)
        finally:
            if arguments is not None:  # a program's own; a command also guards output at its exit
                release_terminals()
    except KeyboardInterrupt:  # during the imports
        return 130
    finally:
        gc.enable()
