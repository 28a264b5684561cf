"""The data path: what each gateway costs on the way to an engine that answers at once."""
