"""Who may ask: projects, their API keys and users, and what each may do.

How it is found out who a client is: `gateway.authentication`.
"""
