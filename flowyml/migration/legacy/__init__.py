"""FlowyML 0.x to 1.0: the checklist of the migration guide, as far as possible without running anything."""
