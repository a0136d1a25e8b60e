"""Decides what the pipeline of a DAG is, before any text is written.

From the bottom up: ``choices`` (what a branching function returns), ``dates`` and ``context`` (what a task asks Airflow
for), ``decision`` (what became of a task), ``mapping``, ``functions``, ``options`` of pipelines, ``step_options``,
``operators``, ``commands`` of Bash, ``python`` (tasks of functions), ``tasks`` (any task), ``blocks`` (branches),
``moved`` (what of the file moves over), ``schedules``, ``dags`` (all of it together).
"""
