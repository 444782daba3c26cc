"""Videos that tests detect in."""

from pathlib import Path

import cv2
import numpy as np

RATE = 12.5


def write_video(path: Path, pictures: list[np.ndarray], codec: str = "mp4v") -> None:
    """Write pictures of one size as the frames of a video."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), RATE, (width, height))
    for picture in pictures:
        writer.write(picture)
    writer.release()
