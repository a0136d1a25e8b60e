"""Airflow DAG files, read without being executed: ``model`` is what a file says, ``reading`` finds it out."""
