"""Authentication: who a client is, by its API key or token, before anything of its body is read.

What projects and keys there are, and what they may do, is in `gateway.identity`.
"""
