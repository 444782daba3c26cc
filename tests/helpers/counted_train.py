"""`python -m tests.helpers.counted_train FILE train ...`: the command, which adds to FILE how many images this process
detected in."""

import os
import sys
from pathlib import Path

import detectron_gn
from detectron_gn.mrcnn.detectors import Detector


def main(record: Path, arguments: list[str]) -> int:
    detected, start = [], Detector.start_batch

    def counted(self, batch, network=None):
        detected.extend(batch.im_info)
        return start(self, batch, network)

    Detector.start_batch = counted
    code = detectron_gn.main(arguments)
    record.with_suffix(f".{os.environ.get('RANK', '0')}").write_text(str(len(detected)))
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
