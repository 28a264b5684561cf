"""Reference tables for the documentation, generated from the code that they describe."""
