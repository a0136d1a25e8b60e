"""The worker's side: load the user's code, run a step, move its data, fire its hooks. Standard library only."""
