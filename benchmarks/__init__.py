"""Speed, memory and robustness, measured: each runs as `python -m benchmarks.NAME` from the repository."""
