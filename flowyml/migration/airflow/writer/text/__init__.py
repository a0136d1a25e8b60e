"""Writes the text of a module from what was decided: its ``names``, ``steps``, ``pipelines``, and the module itself."""
