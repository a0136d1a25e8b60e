"""Airflow DAG files, read without executing them: ``model`` is the content of a file, ``reader`` finds it."""
