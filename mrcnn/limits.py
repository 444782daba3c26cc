"""Bounds on what a file may make the program do, where the file's own size does not bound it.

docs/security.md has the table of all bounds and what raises them; `weights/limits.py` has those on weights and servers.
"""

# Pixels of an image, width times height. A file of a few kilobytes can declare billions. An image takes 18 bytes for
# each until it is scaled down, so that this many take 2 GiB. Sensors of telephones and cameras have up to 108 million,
# a few have 200 million. `--max-pixels` raises it.
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

# A configuration as text. Detectron's own dump of all its keys has 10 thousand characters, 600 values and 8 levels; the
# longest value of a published configuration, a list of URLs, has under a thousand characters.
# `mrcnn/config/bounds.py` has the largest values of keys.
MAX_CONFIG_CHARACTERS = 100_000
MAX_CONFIG_VALUES = 20_000
MAX_CONFIG_DEPTH = 30
MAX_VALUE_CHARACTERS = 20_000

# A file of class names, and each of them, in bytes.
LARGEST_NAMES_FILE = 4 << 20
LONGEST_CLASS_NAME = 1024

# Values of an array of a reference: four times as many as the largest blob of a published model has in an image of
# 1333 x 1333 pixels.
MOST_REFERENCE_VALUES = 2**28
