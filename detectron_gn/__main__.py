"""`python -m detectron_gn COMMAND ...`, which `torchrun -m detectron_gn` starts too."""

import sys

from detectron_gn import main

sys.exit(main())
