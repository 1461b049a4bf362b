"""What every policy stands on: binding, driving, streams, lineage, fork."""
