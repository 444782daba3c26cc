"""Bounds on what a weights file or a server may make the program do; docs/security.md has the table of all bounds.

Those on the structure of a file have no option that raises them: each is many times what any model has, and what the
readers' promises about time and memory follow from. `mrcnn/limits.py` has those on pictures, annotations and
configurations.
"""

# A download, in GiB. `DETECTRON_GN_MAX_GIB` raises it, and `download --max-gib`.
MAX_DOWNLOAD_GIB = 16
# Bytes that must stay free on the disk beside a download.
SPARE_BYTES = 64 << 20
MAX_REDIRECTS = 5

# What a file holds. Arrays and their dimensions are those that can be written and read again in every format.
MAX_NAME_BYTES = 1024
MAX_CFG_BYTES = 4 << 20
MAX_DIMENSIONS = 32
MAX_ITERATION = 2**63 - 1
MAX_BLOBS = 10_000
MAX_ALL_DIMENSIONS = 90_000
# How many times the size of its file all arrays may have together, counted with each of their names.
MAX_TIED = 8
MAX_CATEGORIES = 100_000
MAX_CATEGORIES_BYTES = 4 << 20
# Of a category: signed, in 64 bits.
MAX_CATEGORY_ID = 2**63 - 1

# Pickles. The largest published model takes 16,000 opcodes, a `.pth` of MAX_BLOBS tensors 380,000. As many as these
# fill at most 50 MiB, in a second or two.
MAX_OPCODES = 500_000
MAX_STACK = 10_000
MAX_OPEN_MARKS = 64
MAX_LINE = 256
MAX_INTEGER_BYTES = 16

# Proposals: an image takes some 50 opcodes, so a data set may have 400,000 of them. There are no more opcodes above
# MAX_OPCODES than a fourth of the file's bytes; those of a real file are less than a tenth.
MAX_PROPOSALS_OPCODES = 20_000_000
BYTES_OF_AN_OPCODE = 4
# Bytes of all boxes and scores, counted for each image that they are of, where images share them: 2,000 boxes of
# each image of COCO's training data take 5 GB.
MAX_SHARED_PROPOSALS_BYTES = 8 << 30

# Zip archives: zipfile takes some 600 bytes of memory for an entry that has as few as 47 in the file.
MAX_DIRECTORY_BYTES = 4 << 20

# HDF5: what an attribute of fixed length holds, with room for its header; structures in a file.
MAX_ATTRIBUTE_BYTES = 64_000
MAX_BLOCKS = 100_000

# Characters of a record that lies beside a file of ours, which has a dozen short fields.
MAX_RECORD_CHARACTERS = 1 << 16
