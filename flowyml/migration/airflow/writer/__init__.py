"""Writes FlowyML pipelines from models of DAG files. No DAG file is executed, and all names in it are hostile.

From the bottom up: ``notes`` (what became of each construct), ``statements`` (what those of a DAG file define, use and
change), ``moving`` (functions that move over as they stand), ``values`` (values as source), ``deciding`` (what each
task becomes), ``text`` (the text of a module), ``report`` (totals, and the same for terminals, Markdown, HTML, JSON),
``writing`` (files and folders).
"""
