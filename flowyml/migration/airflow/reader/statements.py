"""Python's statements. If a condition is unknown, both branches are run, and their results are merged."""

from __future__ import annotations

import ast
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from flowyml.migration.airflow.reader import values
from flowyml.migration.airflow.reader.loops import Abandoned, Break, Continue, Return, Tries, catches
from flowyml.migration.airflow.reader.machine import short


class ContextCall(values.Instance):
    """A call of a function decorated with ``contextmanager``: ``with`` runs it around its body."""

    def __init__(self, function: Any, arguments: values.Arguments) -> None:
        super().__init__(None)
        self.function = function
        self.arguments = arguments


class Statements(Tries):
    """Executes statements in the current scope."""

    def block(self, nodes: Sequence[ast.stmt]) -> None:
        """Execute statements, one after another."""
        for node in nodes:
            self.steps += 1
            if self.steps > self.options.steps:
                self.step()
            executor = _EXECUTORS.get(type(node))
            if executor is not None:
                executor(self, node)

    def _expression(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self.eval(node.value)

    # Conditions

    def _if(self, node: ast.If) -> None:
        test = self.eval(node.test)
        truth = self.truth(test)
        if truth is not None:
            self._decided(test, truth, node)
            self.block(node.body if truth else node.orelse)
            return
        before = self.context.effects
        ways = self.both([lambda: self.block(node.body), lambda: self.block(node.orelse)], node)
        self.doubts += [(way, node, self.context.effects) for way in ways]
        if self.context.effects != before:
            text = f"`{self.source(node.test)[:80]}` is unknown: both branches are read"
            self.warn("unknown-condition", text, node)

    def _decided(self, test: Any, truth: bool, node: ast.If) -> None:
        """Warn if only a default decides a condition, and so the branch that is run."""
        if type(test) is values.Soft:
            what = "the other branch is left out" if node.orelse or not truth else "its body is read"
            text = f"`{self.source(node.test)[:80]}` is {truth} with the default of {test.origin}: {what}"
            self.warn("default-taken", text, node)

    def both(self, arms: list[Callable[[], None]], node: ast.AST) -> set[type[Exception]]:
        """Run each arm from the same start, then continue with the results of all.

        Returns the ways in which arms leave the block around them (``break``, ``continue``, ``return``): then the
        following statements may not be run.
        """
        start = dict(self.scope.names)
        bound = map(values.hard, start.values())
        files = [(one, one.tell()) for one in bound if isinstance(one, io.StringIO) and not one.closed]
        ways: set[type[Exception]] = set()
        ends: list[dict[Any, Any]] = []
        self.context.uncertain += 1
        for arm in arms:
            self.scope.names.clear()
            self.scope.names.update(start)
            for file, at in files:
                file.seek(at)
            try:
                arm()
            except (Break, Continue) as end:
                self.left += isinstance(end, Break)
                ways.add(type(end))
                self._note_bound(start)
                continue
            except (values.Raised, Abandoned):
                continue
            except Return as left:
                ways.add(Return)
                if self.maybe:
                    self.maybe[-1].append(left.value)
                continue
            finally:
                ends_here = dict(self.scope.names)
            ends.append(ends_here)
        self.context.uncertain -= 1
        self._merge(start, ends, node)
        return ways

    def _note_bound(self, start: Mapping[Any, Any]) -> None:
        """Count a change if an arm that ends a pass or a loop has bound names: they are not merged."""
        names = self.scope.names
        self.context.changed += any(value is not names.get(name, value) for name, value in start.items())

    def _merge(self, start: dict[Any, Any], ends: list[dict[Any, Any]], node: ast.AST) -> None:
        names = self.scope.names
        names.clear()
        names.update(start)
        for end in ends:
            for name in end:
                found = [one[name] for one in ends if name in one]
                names[name] = self.either(node, found)
        if not ends and self.maybe:
            raise Abandoned

    def _match(self, node: ast.Match) -> None:
        subject = self.eval(node.subject)
        if type(subject) is values.Soft:
            text = f"`match {self.source(node.subject)[:60]}` depends on the default of {subject.origin}"
            self.warn("default-taken", text, node)
        for index, case in enumerate(node.cases):
            fits = self._fits(case.pattern, values.hard(subject))
            if fits and case.guard is not None:
                fits = self.truth(self.eval(case.guard))
            if fits:
                self.block(case.body)
                return
            if fits is None:
                arms = [partial(self._case, one, values.hard(subject)) for one in node.cases[index:]]
                last = node.cases[-1]  # `case _:` and `case name:` take all
                takes_all = isinstance(last.pattern, ast.MatchAs) and last.pattern.pattern is None and not last.guard
                self.both([*arms, *([] if takes_all else [lambda: None])], node)
                self.warn("unknown-condition", f"`match {self.source(node.subject)[:60]}` is unknown", node)
                return

    def _case(self, case: ast.match_case, subject: Any) -> None:
        """Run a case that may or may not match, unless its own pattern decides that."""
        for one in ast.walk(case.pattern):
            name = one.rest if isinstance(one, ast.MatchMapping) else getattr(one, "name", None)
            if name:
                self.bind(name, self.unknown(case.pattern))
        if self._fits(case.pattern, subject) is False:
            return
        if case.guard is None or self.truth(self.eval(case.guard)) is not False:
            self.block(case.body)

    def _fits(self, pattern: ast.pattern, subject: Any) -> bool | None:
        match pattern:
            case ast.MatchAs(pattern=inner, name=name):
                if name:
                    self.bind(name, subject)
                return True if inner is None else self._fits(inner, subject)
            case ast.MatchMapping():
                return self._fits_mapping(pattern, subject)
            case ast.MatchValue():
                return self.truth(self.compare(ast.Eq, subject, self.eval(pattern.value), pattern.value))
            case ast.MatchSequence():
                return self._fits_all(pattern.patterns, subject)
            case ast.MatchSingleton():
                return None if isinstance(subject, values.Unknown) else subject is pattern.value
            case ast.MatchClass():
                return self._fits_class(pattern, subject)
            case ast.MatchOr():
                answers = [self._fits(one, subject) for one in pattern.patterns]
                return True if True in answers else None if None in answers else False
        return None

    def _fits_class(self, pattern: ast.MatchClass, subject: Any) -> bool | None:
        """Match ``str(name)``: the pattern of a class of plain data contains the value itself."""
        cls = values.hard(self.eval(pattern.cls))
        if isinstance(cls, values.Class) and isinstance(subject, values.Instance) and subject.cls is not None:
            return self._fits_instance(pattern, cls, subject)
        name = getattr(pattern.cls, "id", "")
        if name not in _CLASSES or pattern.kwd_patterns or isinstance(subject, values.Unknown):
            return None
        if not isinstance(subject, _CLASSES[name]):
            return False
        return _all_of(self._fits(one, subject) for one in pattern.patterns)

    def _fits_instance(self, pattern: ast.MatchClass, cls: values.Class, subject: values.Instance) -> bool | None:
        """Match ``Table(name, kind="raw")``: the fields of a dataclass by position, attributes by name."""
        if subject.cls is None or cls not in subject.cls.mro():
            return False
        names = [*(cls.fields or {})][: len(pattern.patterns)]
        if len(names) < len(pattern.patterns):
            return None
        pairs = [*zip(names, pattern.patterns, strict=True), *zip(pattern.kwd_attrs, pattern.kwd_patterns, strict=True)]
        return _all_of(self._fits(one, values.hard(self.attribute(subject, name, one))) for name, one in pairs)

    def _fits_all(self, patterns: list[ast.pattern], subject: Any) -> bool | None:
        if not isinstance(subject, (list, tuple)):
            return None if isinstance(subject, values.Unknown) else False
        stars = [index for index, one in enumerate(patterns) if isinstance(one, ast.MatchStar)]
        if len(subject) < len(patterns) - len(stars) or (not stars and len(subject) > len(patterns)):
            return False
        items = list(subject)
        if stars:
            at, after = stars[0], len(patterns) - stars[0] - 1
            star = patterns[at]
            if isinstance(star, ast.MatchStar) and star.name:
                self.bind(star.name, items[at : len(items) - after])
            items[at : len(items) - after] = []
            patterns = [one for one in patterns if one is not star]
        return _all_of(self._fits(one, values.hard(item)) for one, item in zip(patterns, items, strict=True))

    def _fits_mapping(self, pattern: ast.MatchMapping, subject: Any) -> bool | None:
        if not isinstance(subject, dict):
            return None if isinstance(subject, values.Unknown) else False
        keys = [values.hard(self.eval(key)) for key in pattern.keys]
        if any(isinstance(key, values.Unknown) for key in keys):
            return None
        if any(key not in subject for key in keys):
            return False
        if pattern.rest:
            self.bind(pattern.rest, {key: value for key, value in subject.items() if key not in keys})
        return _all_of(
            self._fits(one, values.hard(subject[key])) for key, one in zip(keys, pattern.patterns, strict=True)
        )

    def _return(self, node: ast.Return) -> None:
        raise Return(None if node.value is None else self.eval(node.value))

    # Errors

    def _raise(self, node: ast.Raise) -> None:
        if node.exc is None:
            raise self.handled or values.Raised("Exception")
        value = values.hard(self.eval(node.exc))
        called = getattr(value, "arguments", None)
        text = ", ".join(str(one) for one in called.values() if isinstance(one, str)) if called is not None else ""
        raise values.Raised(_exception_name(value), text[:200], value)

    def _assert(self, node: ast.Assert) -> None:
        if self.truth(self.eval(node.test)) is False:
            self.fail("AssertionError", self.source(node.test), node)

    # With

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        self._enter(list(node.items), node)

    def _enter(self, items: list[ast.withitem], node: ast.With | ast.AsyncWith) -> None:
        if not items:
            self.block(node.body)
            return
        first, *rest = items
        value = values.hard(self.eval(first.context_expr))
        if isinstance(value, ContextCall):
            self._around(value, first, rest, node)
            return
        entered = self.entered(value, first.context_expr)
        if first.optional_vars is not None:
            self.assign(first.optional_vars, entered)
        names = _suppressed(value)
        asked, made = self.asked, (self.context.made, self.context.edges)
        try:
            self.within(names, lambda: self._enter(rest, node))
        except values.Raised as error:
            if not self.exited(value, first.context_expr, error) and not catches(names, error):
                raise
        except BaseException:
            self.exited(value, first.context_expr)
            raise
        else:
            self.exited(value, first.context_expr)
            if names and self.asked != asked and (self.context.made, self.context.edges) != made:
                text = f"whether all within `{self.source(first.context_expr)[:60]}` runs is unknown: all of it is read"
                self.warn("unknown-condition", text, node)

    def entered(self, value: Any, node: ast.AST) -> Any:
        """Return the result of ``with value``."""
        if isinstance(value, values.Instance) and (method := value.special("__enter__")):
            return self.call(self.bound(method, value, node), values.Arguments(), node)
        return self.world.enter(value, node)

    def exited(self, value: Any, node: ast.AST, error: values.Raised | None = None) -> bool:
        """End ``with value``. Returns whether it suppresses the error."""
        if isinstance(value, values.Instance) and (method := value.special("__exit__")):
            given = [values.Given(None if error is None else self.unknown(node)) for _ in range(3)]
            return self.truth(self.call(self.bound(method, value, node), values.Arguments(given), node)) is True
        self.world.leave(value, node)
        return False

    def _around(self, value: ContextCall, item: ast.withitem, rest: list[ast.withitem], node: Any) -> None:
        inside, left = self.from_here(), []

        def body(given: Any, _: ast.AST) -> None:
            with inside():
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, given)
                try:
                    self._enter(rest, node)
                except (Break, Continue, Return, Abandoned) as error:
                    left.append(error)  # the statements after the `yield` run anyway

        self.run(value.function, value.arguments, item.context_expr, body)
        if left:
            raise left[0]

    # Definitions and imports

    def _define(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        defined = self.function(node, node.name)
        value: Any = defined
        for decorator in reversed(node.decorator_list):
            value = self.decorate(decorator, value, node)
            if isinstance(value, values.Function) and value.wraps:
                value.defined = defined
        self.bind(node.name, value)

    def decorate(self, decorator: ast.expr, value: Any, node: ast.AST) -> Any:
        """Apply a decorator to a function or class. An unknown decorator is assumed to change nothing."""
        function = self.eval(decorator)
        found = self.call(function, values.Arguments([values.Given(value, None, self.module)]), decorator)
        if isinstance(found, values.Unknown) and isinstance(values.hard(function), (values.Unknown, values.Foreign)):
            return (
                found
                if isinstance(found, values.Either) and not isinstance(values.hard(function), values.Foreign)
                else value
            )
        if isinstance(found, values.Unknown) and isinstance(function, values.Instance):
            self.warn("unknown-call", f"what `@{short(self.source(decorator))}` makes is unknown", node)
        return found

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            value = self.imported(alias.name, node)
            if alias.asname:
                self.bind(alias.asname, value)
            else:
                self.bind(top, value if top == alias.name else self.imported(top, node))


_CLASSES: Mapping[str, type] = {one.__name__: one for one in (bool, bytes, dict, float, int, list, set, str, tuple)}


def _all_of(answers: Iterable[bool | None]) -> bool | None:
    """Return whether all answers are true: False if one is false, None if unknown."""
    found = list(answers)
    return False if False in found else None if None in found else True


def _suppressed(value: Any) -> set[str]:
    """Return the names of the exceptions that ``with value`` suppresses."""
    if isinstance(value, values.ForeignValue) and value.path == "contextlib.suppress" and value.arguments is not None:
        return {_exception_name(values.hard(one.value)) for one in value.arguments.positional}
    return set()


def _exception_name(value: Any) -> str:
    if isinstance(value, values.Foreign):
        return value.name
    if isinstance(value, values.Instance) and value.cls is not None:
        return value.cls.name
    if isinstance(value, values.Class):
        return value.name
    path = getattr(value, "path", "")
    return str(path).rpartition(".")[2] or "Exception"


_EXECUTORS: Mapping[type[ast.stmt], Callable[[Any, Any], None]] = {
    ast.Expr: Statements._expression,
    ast.Assign: Statements._assign,
    ast.AnnAssign: Statements._annotated,
    ast.AugAssign: Statements._augmented,
    ast.Delete: Statements._delete,
    ast.Global: Statements._outer,
    ast.Nonlocal: Statements._outer,
    ast.If: Statements._if,
    ast.Match: Statements._match,
    ast.For: Statements._for,
    ast.AsyncFor: Statements._for,
    ast.While: Statements._while,
    ast.Break: Statements.ended,
    ast.Continue: Statements.ended,
    ast.Return: Statements._return,
    ast.Raise: Statements._raise,
    ast.Assert: Statements._assert,
    ast.Try: Statements.tried,
    ast.TryStar: Statements.tried,
    ast.With: Statements._with,
    ast.AsyncWith: Statements._with,
    ast.FunctionDef: Statements._define,
    ast.AsyncFunctionDef: Statements._define,
    ast.ClassDef: lambda machine, node: machine._class(node),
    ast.Import: Statements._import,
    ast.ImportFrom: lambda machine, node: machine._import_from(node),
}
