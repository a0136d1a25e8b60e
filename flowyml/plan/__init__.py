"""The one intermediate representation: adapters compile it and workers run it. Standard library only."""
