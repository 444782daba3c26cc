"""Detection over a data set and its average precision."""
