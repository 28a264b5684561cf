"""Batches: how an input file is checked and ordered, and how its lines run on spare capacity."""
