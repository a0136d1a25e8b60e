"""Write pipelines: steps, contexts, pipelines by names and by calls. Standard library only."""
