"""Detect in a picture with an exported network: numpy, OpenCV and ONNX Runtime, nothing else.

    detectron-gn export model_final.pkl --out model.onnx
    python examples/onnx_detect.py model.onnx photo.jpg drawing.png
"""

import json
import os
import sys

import cv2
import numpy as np
import onnxruntime

MIN_SCORE = 0.5


def paste(soft_mask, box, height, width, threshold=0.5):
    """The mask of a whole picture, [height, width] bool, from a soft mask [M, M] over its box, as Detectron pastes."""
    side = len(soft_mask)
    # One empty bin all around, and the box as much larger; corners are cut to whole pixels toward zero.
    half, middle = (box[2:] - box[:2]) * 0.5 * ((side + 2) / side), (box[2:] + box[:2]) * 0.5
    x1, y1, x2, y2 = np.concatenate((middle - half, middle + half)).astype(np.int32).tolist()
    soft = cv2.resize(np.pad(soft_mask, 1), (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)))
    mask = np.zeros((height, width), bool)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
    if left < right and top < bottom:
        mask[top:bottom, left:right] = soft[top - y1 : bottom - y1, left - x1 : right - x1] > threshold
    return mask


def open_network(path):
    """A session of ONNX Runtime, and the file's metadata; SystemExit for what `export` did not write."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said here, in one sentence
    read(path)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a type for each fault, none of which is public; the text is CODE : NUMBER : NAME : ...
        name = [*str(error).split(" : "), "", ""][2]
        fail(f"{path} is no ONNX file that ONNX Runtime runs ({name or type(error).__name__})")
    metadata = session.get_modelmeta().custom_metadata_map
    if "class_names" not in metadata or [each.name for each in session.get_inputs()] != ["image"]:
        fail(f"{path} takes no image: write it with `detectron-gn export SOURCE --out {path}`, without --input blob")
    return session, metadata


def read(path):
    """The bytes of a file; SystemExit where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")


def read_picture(path):
    """A picture as the network takes it: [H, W, 3] uint8, blue first; SystemExit where there is none."""
    content = np.frombuffer(read(path), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    if image is None:
        fail(f"{path} is no picture that OpenCV can read")
    return image


def detect(session, image):
    """The outputs of the network by name, for a BGR picture [H, W, 3] uint8 as cv2.imread gives it."""
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"image": image})))


def draw(image, found, names, threshold=0.5):
    """A picture with masks, boxes, keypoints and names of what scores at least MIN_SCORE."""
    picture = image.copy()
    for number in np.flatnonzero(found["scores"] >= MIN_SCORE):
        box, label = found["boxes"][number], int(found["classes"][number])
        colour = tuple(int(value) for value in np.random.default_rng(label).integers(80, 256, 3))
        if "mask_probs" in found:
            mask = paste(found["mask_probs"][number], box, *image.shape[:2], threshold)
            picture[mask] = (0.6 * picture[mask] + 0.4 * np.array(colour)).astype(np.uint8)
        for x, y, logit in found["keypoints"][number] if "keypoints" in found else ():
            if logit > 2:
                cv2.circle(picture, (int(x), int(y)), 2, colour, cv2.FILLED)
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour)
        text = f"{names[label]} {found['scores'][number]:.2f}"
        cv2.putText(picture, text, (x1, max(y1 - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return picture


def check_drawing(path):
    """SystemExit where no picture can be written under a name, before anything is computed."""
    if not os.path.isdir(os.path.dirname(path) or "."):
        fail(f"{path} cannot be written: there is no such folder")
    if not os.path.splitext(path)[1] or not cv2.haveImageWriter(path):
        fail(f"{path} has no ending of a picture: name it drawing.png or drawing.jpg")


def fail(sentence):
    """One sentence about what is wrong, and exit code 2."""
    print(f"onnx_detect.py: {sentence}", file=sys.stderr)
    raise SystemExit(2)


def main(arguments):
    """Detect, print what was found, and draw it."""
    if len(arguments) != 3:
        fail("give three names: python onnx_detect.py MODEL.onnx PHOTO DRAWING")
    model, photo, drawing = arguments
    image = read_picture(photo)
    check_drawing(drawing)
    session, metadata = open_network(model)
    names, ids = json.loads(metadata["class_names"]), json.loads(metadata.get("category_ids", "null"))
    found = detect(session, image)
    shown = np.flatnonzero(found["scores"] >= MIN_SCORE)
    for number in sorted(shown, key=lambda number: -found["scores"][number]):
        label = int(found["classes"][number])
        category = f" (category {ids[label]})" if ids else ""
        corners = " ".join(f"{corner:.1f}" for corner in found["boxes"][number])
        print(f"{found['scores'][number]:.4f} {names[label]}{category}: {corners}")
    if not cv2.imwrite(drawing, draw(image, found, names, float(metadata.get("mask_threshold", 0.5)))):
        fail(f"{drawing} cannot be written")
    print(f"{len(shown)} of {len(found['scores'])} detections score {MIN_SCORE} or more and are drawn in {drawing}")


if __name__ == "__main__":
    main(sys.argv[1:])
