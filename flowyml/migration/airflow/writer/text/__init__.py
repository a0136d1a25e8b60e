"""Writes the text of a module, from what was decided."""
