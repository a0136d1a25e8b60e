"""Decides what the pipeline of a DAG is, before any text is written."""
