"""The parsed request: what the gateway reads of a body and its headers, and who sent it."""
