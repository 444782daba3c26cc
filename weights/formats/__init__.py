"""The formats of weights files: each one read and written, and which one a file is."""
