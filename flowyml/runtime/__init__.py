"""What runs on workers: load the user's code, run one step, move its data, fire its hooks. Standard library only."""
