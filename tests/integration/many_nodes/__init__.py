"""Tests that share one gateway; a package, so that it ends with the last of them."""
