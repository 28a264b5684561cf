"""The parsed request: fields of its body and headers that the gateway reads, and its tenant."""
