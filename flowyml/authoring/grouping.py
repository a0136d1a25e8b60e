"""The groups that are open while a pipeline is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from flowyml.authoring.source_lines import SourceLine, errors_at, users_line
from flowyml.core.errors import DefinitionError
from flowyml.plan.conditions import Condition
from flowyml.plan.groups import Branch, Cleanup, Group, Loop, Section
from flowyml.plan.names import MAX_NAME_LENGTH, check_name

__all__ = ["Block", "Grouping"]


T = TypeVar("T")


class Block(AbstractContextManager[T, None]):
    """The block of a ``with for_each(…) as item:`` and the like. Without ``with``, it would silently do nothing."""

    def __init__(
        self, verb: str, inner: AbstractContextManager[T, bool | None], entered: Callable[[Block[Any]], None]
    ) -> None:
        self.line = users_line()
        self._verb = verb
        self._entered = entered
        self._inner = inner

    def __enter__(self) -> T:
        self._entered(self)
        with errors_at(self.line):
            return self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        self._inner.__exit__(kind, error, trace)

    def __iter__(self) -> NoReturn:
        raise self.misused()

    def misused(self) -> DefinitionError:
        """Return the message for a block that was never entered."""
        item = " as item" if self._verb == "for_each" else ""
        inside = "" if self._verb.endswith(("otherwise", "cleanup")) else "…"
        return DefinitionError(
            f"{self._verb}({inside}) begins a block: write `with {self._verb}({inside}){item}:` and its steps below."
        )


class Grouping:
    """Collects groups; a step or group that is added while a group is open belongs to that group."""

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self._blocks: list[Block[Any]] = []  # those that were not entered yet
        self._open: list[str] = [""]
        self._choices: dict[str, str] = {}  # by the group around: the choice that another branch may still join
        self._decided: set[str] = set()  # choices with an otherwise
        self._count: dict[str, int] = {}
        self.lines: dict[str, SourceLine] = {}
        """The lines of the blocks by their groups."""
        self._line: SourceLine | None = None

    def block(self, verb: str, inner: AbstractContextManager[T, bool | None]) -> Block[T]:
        """Return the context manager that the user enters by ``with``."""
        self._blocks.append(block := Block(verb, inner, self._enter))
        return block

    def choice(self, verb: str, condition: Condition | None, name: str | None, *, joins: bool) -> Block[None]:
        """Return the block of a branch, which by default has its condition, cut, as its name."""
        if name is not None:
            return self.block(verb, self.branch(check_name(name, "branch"), condition, joins=joins))
        text = "otherwise" if condition is None else str(condition)
        chosen = text if len(text) <= MAX_NAME_LENGTH else f"{text[: MAX_NAME_LENGTH - 1]}…"
        return self.block(verb, self.branch(chosen, condition, joins=joins))

    def cleanup(self, verb: str, name: str) -> Block[Any]:
        return self.block(verb, self.open(Cleanup(name=check_name(name, "cleanup"))))

    def _enter(self, block: Block[Any]) -> None:
        self._blocks = [other for other in self._blocks if other is not block]
        self._line = block.line

    def check_blocks(self) -> None:
        """Raise ``DefinitionError`` for a block without ``with``."""
        for block in self._blocks:
            with errors_at(block.line):
                raise block.misused()

    @property
    def current(self) -> str:
        """The innermost open group; empty for none."""
        return self._open[-1]

    def note_step(self) -> None:
        """Note that a step was added here: a branch after it begins a new choice."""
        self._choices.pop(self.current, None)

    @contextmanager
    def open(self, group: Group) -> Iterator[Group]:
        """Add a group here, under a free name; steps and groups that are added within the context belong to it."""
        if isinstance(group, Loop) and sum(isinstance(outer, Loop) for outer in self._around()) > 1:
            raise DefinitionError(
                "Loops can be nested only two deep: process the items of the innermost loop inside a step."
            )
        if isinstance(group, Cleanup) and self.current:
            if called := next((outer for outer in self._around() if isinstance(outer, Section)), None):
                raise DefinitionError(
                    f"Pipeline {called.pipeline!r} has cleanup(), which runs when a whole run has ended, so no other "
                    f"pipeline can call it: put cleanup() into the outermost one."
                )
            raise DefinitionError("cleanup() cannot be in another block: it runs when the whole pipeline has ended.")
        self._choices.pop(self.current, None)
        opened = replace(group, name=self._free(group.name), parent=self.current)
        self.groups.append(opened)
        if self._line:
            self.lines[opened.name], self._line = self._line, None
        self._open.append(opened.name)
        try:
            yield opened
        finally:
            self._open.pop()
            self._choices.pop(opened.name, None)

    @contextmanager
    def branch(self, name: str, condition: Condition | None, *, joins: bool) -> Iterator[None]:
        """Open a branch: the first of a choice, or one that ``joins`` the preceding branch."""
        choice = self._choices.get(self.current, "")
        if joins and (not choice or choice in self._decided):
            what = "otherwise()" if condition is None else "elif_(…)"
            after = "an otherwise(), which is the last" if choice else "no when(…) right before it in the same block"
            raise DefinitionError(f"{what} has {after}.")
        name = self._free(name)
        around = self.current
        with self.open(Branch(name=name, choice=choice if joins else name, condition=condition)) as branch:
            assert isinstance(branch, Branch)
            if condition is None:
                self._decided.add(branch.choice)
            yield
        self._choices[around] = branch.choice

    def in_ended_loop(self, group: str) -> bool:
        """Return whether ``group`` is in a loop, or is one, whose block has ended."""
        by_name = {scope.name: scope for scope in self.groups}
        while group:
            if isinstance(by_name[group], Loop) and group not in self._open:
                return True
            group = by_name[group].parent
        return False

    def _around(self) -> Iterator[Group]:
        return (group for group in self.groups if group.name in self._open)

    def _free(self, stem: str) -> str:
        names = {group.name for group in self.groups}
        name = stem
        while name in names:
            self._count[stem] = self._count.get(stem, 1) + 1
            name = f"{stem}_{self._count[stem]}"
        return name
