"""Bounds on what a file may make the program do, where the file's own size does not bound it."""

# Pixels of an image, width times height. A file of a few kilobytes can declare billions. An image takes 17 bytes for
# each until it is scaled down, so that this many take 2 GB. Sensors of telephones and cameras have up to 108 million, a
# few have 200 million. `--max-pixels` raises it.
MAX_IMAGE_PIXELS = 120_000_000
