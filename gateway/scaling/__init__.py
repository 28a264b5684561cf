"""How many replicas a model should have: what its load asks for, and when that is followed."""
