"""Reads Airflow DAG files without executing them: a partial evaluator of Python with bounded steps.

``reading.read_file`` reads one file, ``reading.read_files`` many of them in parallel processes. From the bottom up:
``values`` (what an expression can be), ``nodes`` (DAGs, tasks, groups), ``parts`` (which of these a value holds),
``context`` and ``linking`` (where tasks stand, their edges), ``files`` (what may be read), ``operations`` and
``library`` (Python on plain data, its library by subjects), ``machine``, ``protocols``, ``expressions``,
``assignments``, ``loops``, ``statements`` and ``calls`` (the evaluator), ``api`` (Airflow's own names), ``schedules``
and ``modelling`` (from nodes to the model).
"""
