"""Write FlowyML pipelines from models of DAG files. No DAG file is executed, and all names in it are hostile.

From the bottom up: ``notes`` (the result for each construct), ``syntax`` (the names that statements of a DAG file
define, use and change), ``moving`` (functions that are copied unchanged), ``values`` (values as source), ``deciding``
(the step for each task), ``text`` (the text of a module), ``report`` (totals, and the same for terminals, Markdown,
HTML, JSON), ``writing`` (files and folders).
"""
