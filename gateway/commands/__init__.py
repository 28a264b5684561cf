"""Commands that administer a running gateway: they speak its admin API."""
