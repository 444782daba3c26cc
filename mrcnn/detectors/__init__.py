"""Whole networks, put together from a backbone and heads."""
