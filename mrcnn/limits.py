"""Bounds on what a file may make the program do, where the file's own size does not bound it."""

# Pixels of an image, width times height. A file of a few kilobytes can declare billions. An image takes 17 bytes for
# each until it is scaled down, so that this many take 2 GB. Sensors of telephones and cameras have up to 108 million, a
# few have 200 million. `--max-pixels` raises it.
MAX_IMAGE_PIXELS = 120_000_000

# Pixels of a side of an annotated image, about twice what JPEG holds.
LARGEST_SIDE = 100_000

# pycocotools counts the pixels of a mask in 32 bits.
MOST_MASK_PIXELS = 2**32 - 1

# Pixels along a polygon's edges, as a multiple of its image's height and width together. pycocotools draws five points
# for each, in 8 bytes, so a few kilobytes of points can ask for gigabytes. COCO's longest outlines have about 4.
LONGEST_OUTLINE = 100

# How far outside of its image a polygon may lie, as a multiple of the same. pycocotools counts pixels in 32 bits.
FARTHEST_OUTLINE = 10
