"""Read Airflow DAG files without executing them: a partial evaluator of Python with bounded steps.

``reading.read_file`` reads one file, ``reading.read_files`` many of them in parallel processes. From the bottom up:
``values`` (the values of expressions), ``nodes`` (DAGs, tasks, groups), ``parts`` (which of these a value contains),
``context`` (the groups of tasks, their edges), ``files`` (the files that may be read), ``operations`` and ``library``
(Python on plain data, its library by subjects), ``machine``, ``members``, ``protocols``, ``expressions``,
``assignments``, ``loops``, ``statements``, ``calls`` and ``evaluator`` (the evaluator), ``api`` (Airflow's own names),
``schedules`` and ``modelling`` (from nodes to the model).
"""
