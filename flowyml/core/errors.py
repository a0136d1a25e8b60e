"""Every error that FlowyML raises.

::

    FlowymlError
    ├── DefinitionError (ValueError)            the pipeline is wrong as written
    │   ├── CycleError
    │   ├── UnknownOptionError (TypeError)      a keyword that a pipeline or a step does not take
    │   └── OverrideError (TypeError)           a Pipeline subclass that overrides run()
    ├── ParameterError (ValueError)             a run parameter is unknown, missing or of the wrong type
    ├── ScheduleError (ValueError)              a schedule that no engine could keep
    ├── ConfigurationError (ValueError)         a target in flowyml.toml, pyproject.toml or the environment
    ├── PlanError (ValueError)                  a plan or bundle that cannot be read
    ├── DeploymentError                         a deployment or schedule that cannot be made
    │   └── OwnershipError (PermissionError)    another pipeline has its name there, or it was changed by hand
    ├── UnsupportedFeatureError                 the plan needs what the engine cannot do; nothing was sent
    │   └── NoFileFormatError                   the engine takes no files to compile to
    ├── OrchestratorNotFoundError (LookupError) no orchestrator of that name, no engine at that URL
    ├── MissingExtraError (ImportError)         the engine's client library is not installed
    ├── PluginError                             a third-party orchestrator that cannot be loaded
    ├── RunNotFoundError (LookupError)          the engine knows no such run
    ├── ScheduleNotFoundError (LookupError)     the engine knows no such schedule
    ├── RetryRefusedError                       the run cannot be retried: it is in progress, or completed
    ├── WaitTimeoutError (TimeoutError)         waiting ended, the run goes on
    ├── EngineError                             the engine answered with an error
    │   ├── EngineUnreachableError (ConnectionError)
    │   ├── ServerTroubleError                  it answered 500, often only while its database is busy
    │   ├── AuthenticationError (PermissionError)
    │   └── UnknownStateError (ValueError)      a state that the adapter's table does not know
    ├── ArtifactError (OSError)                 a value could not be stored or read back
    │   ├── NotPicklableError (TypeError)       no format can store the value
    │   ├── MissingLibraryError                 the library of its format is not installed here
    │   └── OutputNotKeptError (LookupError)    the value was not kept; the message says how to keep it
    └── StepError (RuntimeError)                a step did not produce its outputs
        ├── StepFailedError                     the step's function raised, in another process
        ├── MissingSecretError (LookupError)    a secret that the step needs is missing
        ├── OutputError (TypeError)             wrong number of outputs, or one that cannot be stored
        ├── StepTimeoutError (TimeoutError)
        ├── StepCancelledError
        └── StepCrashedError                    the step's process died: killed, segmentation fault, exit
            └── StepOutOfMemoryError (MemoryError)  the kernel killed it, for the memory that it took

Each class also inherits the builtin that a caller would expect. A message says what happened, where, and
what to do now. All of them survive pickling. Retry decisions look at types, never at messages.
"""

from __future__ import annotations

__all__ = [
    "FlowymlError", "DefinitionError", "CycleError", "UnknownOptionError", "OverrideError", "ParameterError",
    "ScheduleError", "ConfigurationError", "PlanError", "DeploymentError", "OwnershipError",
    "UnsupportedFeatureError", "NoFileFormatError", "OrchestratorNotFoundError", "MissingExtraError", "PluginError",
    "RunNotFoundError", "ScheduleNotFoundError", "RetryRefusedError", "WaitTimeoutError", "EngineError",
    "EngineUnreachableError", "ServerTroubleError", "AuthenticationError",
    "UnknownStateError", "ArtifactError", "NotPicklableError", "MissingLibraryError", "OutputNotKeptError",
    "StepError", "StepFailedError",
    "MissingSecretError", "OutputError", "StepTimeoutError", "StepCancelledError", "StepCrashedError",
    "StepOutOfMemoryError",
]  # fmt: skip


class FlowymlError(Exception):
    """The root of every error that FlowyML raises."""


class DefinitionError(FlowymlError, ValueError):
    """The pipeline is wrong as it is written. ``place`` is the line, if it is known: ``train.py, line 12``.

    ``step`` names the wrong step if an engine's compiler found the error; the pipeline then fills in the line.
    """

    place: str = ""
    step: str = ""


class CycleError(DefinitionError):
    """Steps wait for one another in a cycle."""


class UnknownOptionError(DefinitionError, TypeError):
    """A pipeline or a step got a keyword that it does not take."""


class OverrideError(DefinitionError, TypeError):
    """A subclass of ``Pipeline`` overrides what belongs to the orchestrator."""


class ParameterError(FlowymlError, ValueError):
    """A run parameter is unknown, missing, or of the wrong type."""


class ScheduleError(FlowymlError, ValueError):
    """A schedule is invalid, such as a cron expression without any time."""


class ConfigurationError(FlowymlError, ValueError):
    """A named target or a setting is wrong."""


class PlanError(FlowymlError, ValueError):
    """A plan or a bundle cannot be read."""


class DeploymentError(FlowymlError):
    """A deployment or a schedule cannot be made."""


class OwnershipError(DeploymentError, PermissionError):
    """A deployment belongs to another pipeline, or was changed by hand. Replacing it needs ``force=True``."""


class UnsupportedFeatureError(FlowymlError):
    """A plan needs features that an engine lacks. ``lacks`` has a sentence for each of them."""

    lacks: tuple[str, ...] = ()


class NoFileFormatError(UnsupportedFeatureError):
    """An engine takes no files that a pipeline could be compiled to. It may still run the pipeline."""


class OrchestratorNotFoundError(FlowymlError, LookupError):
    """No orchestrator is registered under a name, or no known engine answers at a URL."""


class MissingExtraError(FlowymlError, ImportError):
    """An engine's client library is not installed; the message has the command that installs it."""


class PluginError(FlowymlError):
    """An orchestrator's entry point exists but cannot be loaded."""


class RunNotFoundError(FlowymlError, LookupError):
    """The engine has no run with this id."""


class ScheduleNotFoundError(FlowymlError, LookupError):
    """The engine has no schedule with this id."""


class RetryRefusedError(FlowymlError):
    """A run cannot be retried: it is in progress, it completed, or data that a retry needs was not stored."""


class WaitTimeoutError(FlowymlError, TimeoutError):
    """Waiting for a run reached its timeout. The run itself continues."""


class EngineError(FlowymlError):
    """The engine answered, and the answer was an error."""


class EngineUnreachableError(EngineError, ConnectionError):
    """The engine did not answer. This says nothing about the run, which may continue."""


class ServerTroubleError(EngineError):
    """The engine answered 500, often only while its database is busy. This says nothing about the run either."""


class AuthenticationError(EngineError, PermissionError):
    """The engine refused the credentials."""


class UnknownStateError(EngineError, ValueError):
    """The engine reported a state that is missing in the adapter's table. FlowyML does not guess."""


class ArtifactError(FlowymlError, OSError):
    """A value could not be stored, found, or verified."""


class NotPicklableError(ArtifactError, TypeError):
    """No format takes the value, and it cannot be pickled."""


class MissingLibraryError(ArtifactError):
    """A library that writes or reads the value is not installed here; the message has the command that installs it."""


class OutputNotKeptError(ArtifactError, LookupError):
    """The value existed during the run and was not stored."""


class StepError(FlowymlError, RuntimeError):
    """A step did not produce its outputs. ``step`` names it."""

    step: str = ""


class MissingSecretError(StepError, LookupError):
    """A secret that a step needs is missing in the secret store of the engine that runs it.

    The step is not retried, since its next attempt would find the same, unless ``may_come``: the engine reports a store
    that does not answer in the same way.
    """

    may_come: bool = False


class StepFailedError(StepError):
    """A step's function raised in another process; the message reads ``ValueError: …``.

    ``names`` are those of the error's class and its bases, as retry policies know them; ``traceback`` is its text.
    """

    names: tuple[str, ...] = ()
    traceback: str = ""


class OutputError(StepError, TypeError):
    """A step returned the wrong number of outputs, or one that cannot be stored."""


class StepTimeoutError(StepError, TimeoutError):
    """A step ran longer than its timeout and was stopped."""


class StepCancelledError(StepError):
    """A step was stopped with its run, which was cancelled or took longer than its timeout."""


class StepCrashedError(StepError):
    """The process that ran a step died without a result. ``exit_code`` is negative for a signal."""

    exit_code: int | None = None


class StepOutOfMemoryError(StepCrashedError, MemoryError):
    """The kernel killed a step's process because the machine, or its container, had run out of memory."""
