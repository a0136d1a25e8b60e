"""``flowyml backends``: the engines, whether they answer, their features, and which of them can run a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from flowyml.cli.errors import UsageError
from flowyml.cli.options import Argument, AsJson, Option
from flowyml.cli.output import Output, Word, note
from flowyml.cli.source import load
from flowyml.core.capabilities import Capabilities, Feature, Level
from flowyml.core.errors import (
    ConfigurationError,
    DefinitionError,
    FlowymlError,
    NoFileFormatError,
    UnsupportedFeatureError,
)
from flowyml.core.plain_text import safe_line
from flowyml.orchestrators import registry
from flowyml.orchestrators.base import Health, Orchestrator, RunnablePipeline
from flowyml.orchestrators.needs import needs_of
from flowyml.orchestrators.target import Target
from flowyml.orchestrators.targets import construct, targets
from flowyml.plan.model import Plan

__all__ = ["backends", "show", "sign_in", "stop"]

_MARKS = {Level.YES: "yes", Level.PARTLY: "partly", Level.NO: "no"}
_STYLES = {"yes": "green", "partly": "yellow", "no": "dim"}
_READY = Word("ready", "green")
_SILENT = Word("not running", "yellow")
_UNNAMED = Word("not configured", "dim")
_MISSING = Word("not installed", "dim")
_BROKEN = Word("broken", "red")
_MOST_NAMED = 3  # steps that a feature rules out


@dataclass(frozen=True, slots=True)
class Backend:
    """The facts about one orchestrator, however broken it is."""

    name: str
    engine: str
    state: Word
    install: str | None = None
    problem: str | None = None
    health: Health | None = None
    capabilities: Capabilities | None = None
    orchestrator: Orchestrator | None = None


@dataclass(frozen=True, slots=True)
class Lack:
    """A feature that an engine lacks, or has only within limits, and the steps that need it; none: the whole pipeline.

    ``feature`` is None for a finding of the engine's compiler alone.
    """

    feature: Feature | None
    steps: tuple[str, ...]
    reason: str

    @property
    def title(self) -> str:
        return self.feature.value if self.feature else ""

    @property
    def steps_shown(self) -> str:
        """The first steps by name, and the number of the others."""
        more = len(self.steps) - _MOST_NAMED
        return ", ".join([*self.steps[:_MOST_NAMED], *([f"{more} more"] if more > 0 else [])])


@dataclass(frozen=True, slots=True)
class Verdict:
    """The check of one target. ``limits`` do not rule it out; with a ``problem`` the result is unknown."""

    name: str
    engine: str
    lacks: tuple[Lack, ...] = ()
    limits: tuple[Lack, ...] = ()
    install: str | None = None
    problem: str | None = None

    @property
    def can_run(self) -> bool:
        return not self.lacks and self.problem is None


def backends(
    run: Annotated[
        str | None,
        Option(("--for",), "Say which engines can run a pipeline, and what rules the others out.", "FILE[:NAME]"),
    ] = None,
    matrix: Annotated[bool, Option(("--matrix",), "Show only what each can do; contact no engine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the engines: installed, reachable, and what each can do."""
    with Output(as_json) as out:
        if run is not None and matrix:
            raise UsageError("Use either --for or --matrix, not both.")
        if run is not None:
            _print_who_can_run(out, run, as_json)
            return
        if matrix:
            _print_matrix(out, as_json)
            return
        examined = list(map(_examined, _named()))
        if as_json:
            out.document([_plain(backend) for backend in examined])
            return
        headers = ("BACKEND", "ENGINE", "STATE", "VERSION", "WHERE")
        out.table(headers, [_row(backend) for backend in examined])
        out.line()
        _draw_capabilities(out, {item.engine: item.capabilities for item in examined if item.capabilities})
        note("flowyml backends show NAME explains each 'partly' and 'no'")


def show(
    name: Annotated[str, Argument("NAME", "An engine or a configured target.")],
    as_json: AsJson = False,
) -> None:
    """List the features that one engine supports, supports partly, or lacks."""
    with Output(as_json) as out:
        from flowyml.orchestrators.targets import target

        backend = _examined(target(name))
        if as_json:
            out.document(_plain(backend))
            return
        *row, where = _row(backend)
        said = backend.problem or (backend.health.detail if backend.health else "")
        out.table(("BACKEND", "ENGINE", "STATE", "VERSION", "WHERE"), [(*row, "" if where == said else where)])
        if said:
            out.text(said)
        out.line()
        if backend.capabilities:
            support = [(feature, backend.capabilities[feature]) for feature in Feature]
            out.table(("FEATURE", "", "NOTE"), [(f.value, _mark(s.level), s.note) for f, s in support])


def sign_in(
    name: Annotated[str, Argument("NAME", "An engine, such as prefect.")],
    as_json: AsJson = False,
) -> None:
    """Show the address and the password of the server that FlowyML started for an engine on this machine."""
    with Output(as_json) as out:
        account = _engine(name).sign_in()
        if account is None:
            raise UsageError(
                f"FlowyML started no {name} server that runs on this machine now. Run a pipeline on {name!r}, then ask "
                f"again."
            )
        out.answer(asdict(account), account.url, f"password: {account.password}")
        if not as_json:
            note("Its pages ask for the password once in each browser.")


def stop(
    name: Annotated[str, Argument("NAME", "An engine, such as prefect.")],
    as_json: AsJson = False,
) -> None:
    """Stop the server that FlowyML started for an engine on this machine. Its data stay."""
    with Output(as_json) as out:
        stopped = _engine(name).stop_server()
        what = "stopped" if stopped else f"no {name} server that FlowyML started was running"
        out.answer({"engine": name, "stopped": stopped}, what)


def _engine(name: str) -> type[Orchestrator]:
    factory = registry.load(name)
    if not (isinstance(factory, type) and issubclass(factory, Orchestrator)):
        raise UsageError(f"{name!r} is not an engine with a server.")
    return factory


def _named() -> list[Target]:
    """Return every engine, then every configured target of another name."""
    configured = targets()
    names = [*registry.declared(), *(name for name in configured if name not in registry.declared())]
    return [configured.get(name) or Target(name, name) for name in names]


def _print_matrix(out: Output, as_json: bool) -> None:
    engines: dict[str, Capabilities] = {}
    for name in registry.declared():
        with suppress(FlowymlError):  # a broken plug-in, which `flowyml backends` reports
            if can := getattr(registry.load(name), "capabilities", None):
                engines[name] = can
    if as_json:
        features = [{"name": feature.name, "title": feature.value} for feature in Feature]
        out.document({"features": features, "engines": {name: _table(can) for name, can in engines.items()}})
        return
    _draw_capabilities(out, engines)


def _print_who_can_run(out: Output, file: str, as_json: bool) -> None:
    pipeline = load(file)
    plan = pipeline.compile()
    verdicts = [_check_backend(_examined(item, ask=False), pipeline, plan) for item in _named()]
    if as_json:
        out.document({"pipeline": plan.name, "backends": [_plain_verdict(item) for item in verdicts]})
        return
    out.table(("BACKEND", "ENGINE", "CAN RUN IT"), [(item.name, item.engine, _answer(item)) for item in verdicts])
    for item in verdicts:
        if item.lacks:
            _print_lacks(out, Word(f"{item.name} cannot run {plan.name}:", "red"), item.lacks)
    for item in verdicts:
        if item.limits and item.can_run:
            _print_lacks(out, Word(f"{item.name} can run {plan.name}, with these limits:", "yellow"), item.limits)
    note("no engine was contacted: `flowyml backends` shows which are ready")


def _print_lacks(out: Output, title: Word, lacks: Sequence[Lack]) -> None:
    from textwrap import wrap

    out.line()
    out.line(title)
    for lack in lacks:
        steps = f", for {lack.steps_shown}" if lack.steps else ""
        text = safe_line(f"{lack.title}{steps}: {lack.reason}" if lack.title else lack.reason)
        for number, line in enumerate(wrap(text, out.columns - 4) if out.columns else [text]):
            out.line("    " if number else "  - ", line)


def _check_backend(backend: Backend, pipeline: RunnablePipeline, plan: Plan) -> Verdict:
    """Check by the capabilities of the engine, then by its compiler, which needs neither the engine nor its client."""
    can, orchestrator = backend.capabilities, backend.orchestrator
    if can is None or (backend.problem and backend.state is not _UNNAMED):
        return Verdict(backend.name, backend.engine, problem=backend.problem)
    # Without an address, for example, only capabilities are checked.
    lacks = tuple(_of_level(can, plan, Level.NO)) or tuple(_found_by_compiler(orchestrator, pipeline))
    return Verdict(backend.name, backend.engine, lacks, tuple(_of_level(can, plan, Level.PARTLY)), backend.install)


def _of_level(can: Capabilities, plan: Plan, level: Level) -> Iterator[Lack]:
    steps: dict[Feature, dict[str, None]] = {}
    hints: dict[Feature, str] = {}
    for need in needs_of(plan):
        if can[need.feature].level is level:
            steps.setdefault(need.feature, {}).update(dict.fromkeys(need.steps))
            hints.setdefault(need.feature, need.instead)
    for feature, names in steps.items():
        yield Lack(feature, tuple(names), " ".join(filter(None, [can[feature].sentence, hints[feature]])))


def _found_by_compiler(orchestrator: Orchestrator | None, pipeline: RunnablePipeline) -> Iterator[Lack]:
    if orchestrator is None:
        return
    try:
        orchestrator.plan(pipeline)
        orchestrator.compile_pipeline(pipeline)
    except NoFileFormatError:
        return
    except (DefinitionError, UnsupportedFeatureError) as error:
        step = getattr(error, "step", None)
        yield Lack(None, (step,) if step else (), " ".join(str(error).splitlines()))


def _answer(verdict: Verdict) -> Word:
    if verdict.lacks:
        return Word("no", "red")
    if verdict.problem:
        return Word(f"not known: {verdict.problem}", "yellow")
    extra = "" if verdict.install is None else f", after {verdict.install}"
    return Word(f"yes, with limits{extra}" if verdict.limits else f"yes{extra}", "green")


def _examined(target: Target, *, ask: bool = True) -> Backend:
    """Examine a target, and ``ask`` whether its engine answers.

    A third-party orchestrator that fails is listed with its error, beside the others.
    """
    if target.fault:
        return Backend(target.name, target.engine, _UNNAMED, problem=target.fault)
    try:
        factory = registry.load(target.engine)
    except FlowymlError as error:
        return Backend(target.name, target.engine, _BROKEN, problem=str(error))
    can = getattr(factory, "capabilities", None)
    if install := registry.missing(factory):
        return Backend(target.name, target.engine, _MISSING, install=install, capabilities=can)
    try:
        orchestrator = construct(factory, target, {})
        health = orchestrator.health() if ask else None
    except ConfigurationError as error:
        return Backend(target.name, target.engine, _UNNAMED, problem=str(error), capabilities=can)
    except Exception as error:
        problem = str(error) if isinstance(error, FlowymlError) else f"{type(error).__name__}: {error}"
        return Backend(target.name, target.engine, _BROKEN, problem=problem, capabilities=can)
    state = _READY if health and health.reachable else _SILENT
    return Backend(
        target.name, target.engine, state, health=health, capabilities=orchestrator.capabilities,
        orchestrator=orchestrator,
    )  # fmt: skip


def _row(backend: Backend) -> Sequence[object]:
    health = backend.health
    return (
        backend.name,
        backend.engine,
        backend.state,
        (health.version if health else None) or "",
        backend.install or backend.problem or (health and (health.url or health.detail)) or "",
    )


def _draw_capabilities(out: Output, engines: Mapping[str, Capabilities]) -> None:
    rows = [(feature.value, *(_mark(can[feature].level) for can in engines.values())) for feature in Feature]
    out.table(("FEATURE", *(engine.upper() for engine in engines)), rows)


def _mark(level: Level) -> Word:
    return Word(_MARKS[level], _STYLES[_MARKS[level]])


def _plain(backend: Backend) -> dict[str, Any]:
    health = backend.health
    return {
        "name": backend.name,
        "engine": backend.engine,
        "state": str(backend.state),
        "installed": backend.install is None and backend.state is not _BROKEN,
        "install": backend.install,
        "problem": backend.problem,
        "reachable": bool(health and health.reachable),
        "version": health.version if health else None,
        "url": health.url if health else None,
        "detail": (health.detail if health else "") or None,
        "capabilities": _table(backend.capabilities) if backend.capabilities else None,
    }


def _table(can: Capabilities) -> dict[str, Any]:
    return {feature.name: {"level": can[feature].level.value, "note": can[feature].note or None} for feature in Feature}


def _plain_verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "engine": verdict.engine,
        "can_run": verdict.can_run,
        "install": verdict.install,
        "problem": verdict.problem,
        "lacks": [_plain_lack(lack) for lack in verdict.lacks],
        "limits": [_plain_lack(lack) for lack in verdict.limits],
    }


def _plain_lack(lack: Lack) -> dict[str, Any]:
    feature = lack.feature.name if lack.feature else None
    return {"feature": feature, "title": lack.title, "steps": list(lack.steps), "reason": lack.reason}
