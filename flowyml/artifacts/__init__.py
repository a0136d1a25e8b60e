"""Values between steps: small ones travel with the run, large ones are in a store and travel by reference."""

from flowyml.artifacts.opening import default_url, open_store
from flowyml.artifacts.packing import artifact_key, is_reference, pack, run_place, unpack
from flowyml.artifacts.store import Store

__all__ = ["Store", "artifact_key", "default_url", "is_reference", "open_store", "pack", "run_place", "unpack"]
