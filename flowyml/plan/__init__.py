"""The one intermediate representation: what adapters compile and workers run. Standard library only."""
