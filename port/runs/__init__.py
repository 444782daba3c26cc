"""A source loaded as a network and used on pictures."""
