"""What requests took of the engines, and what that costs: plain rows, sums and prices.

Nothing here knows a database (`gateway.store`) or a process (`gateway.accounts`).
"""
