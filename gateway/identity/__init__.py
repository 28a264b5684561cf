"""Who is asking: projects, their API keys and users, and what each may do."""
