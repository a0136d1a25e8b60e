"""Airflow's own names: the effects of its classes, decorators and helpers when a DAG file is parsed.

From the bottom up: ``making`` (DAGs, tasks and groups; the meaning of import paths), ``edges``,
``assets``, ``decorators``, ``outside`` (Variables, the environment, the configuration), ``attributes`` (of all these
objects), and ``world``, which the evaluator asks. Tables are by name: ``NAMES`` are Airflow's, ``ENDINGS`` the ends of
any import path.
"""
