"""Write the text of a module from the decisions: its ``names``, ``steps``, ``pipelines``, and the module itself."""
