"""What load tests send, drawn from a seed: conversations, and replays of traces."""
