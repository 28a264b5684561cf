"""Checks of `gateway doctor`: pure judgements on facts, a file for each topic."""
