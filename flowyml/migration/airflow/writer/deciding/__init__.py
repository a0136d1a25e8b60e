"""Decide the pipeline of a DAG, before any text is written.

From the bottom up: ``choices`` (the results of a branching function), ``schedules`` and ``context`` (a task's use of
Airflow's context), ``decision`` (the decision for a task, and the code that it needs), ``mapping``, ``functions``,
``options`` of pipelines, ``step_options``, ``operators``, ``commands`` of Bash, ``python`` (tasks of functions),
``tasks`` (any task), ``blocks`` (branches), ``dags`` (all of it together).
"""
