"""The text of a DAG file: its blocks, tasks, operators and docs. ``compiler`` puts them together."""
