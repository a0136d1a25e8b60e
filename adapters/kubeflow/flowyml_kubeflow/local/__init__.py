"""KFP's official local runner as an engine of its own: no cluster, one task after another on this machine."""
