"""Airflow's own names: what its classes, decorators and helpers do when a DAG file is parsed.

From the bottom up: ``import_paths`` (what a path stands for), ``making`` (DAGs, tasks and groups), ``edges``,
``assets``, ``decorators``, ``outside`` (Variables, the environment, the configuration), ``attributes`` (of all these
objects), and ``world``, which the evaluator asks. Tables say which names they answer to: ``NAMES`` are Airflow's,
``ENDINGS`` the ends of any import path.
"""
