"""OpenAI's admin API, `/v1/organization`: projects, keys, limits, usage, costs, the audit log.

It runs in Accounts; routers authenticate administrators and pass their requests on.
"""
