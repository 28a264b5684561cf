"""What runs in the Accounts process: it collects usage, writes the ledger, and informs routers.

Plain asyncio: the Serve deployment around it is `deployments/accounts.py`.
"""
