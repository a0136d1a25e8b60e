"""Draw the graph of a plan: for terminals, as Mermaid, as SVG. Pure functions of the plan, without dependencies."""

from __future__ import annotations

from flowyml.graph.mermaid import mermaid
from flowyml.graph.svg import svg
from flowyml.graph.terminal import terminal

__all__ = ["mermaid", "svg", "terminal"]
