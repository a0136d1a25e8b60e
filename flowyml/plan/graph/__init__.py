"""The graph of a plan as text: for terminals, as Mermaid, as SVG. Pure functions of the plan, without a dependency."""

from __future__ import annotations

from flowyml.plan.graph.mermaid import mermaid
from flowyml.plan.graph.svg import svg
from flowyml.plan.graph.terminal import terminal

__all__ = ["mermaid", "svg", "terminal"]
