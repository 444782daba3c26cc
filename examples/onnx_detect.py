"""Detect in a picture with an exported network: numpy, OpenCV and ONNX Runtime, nothing else.

    detectron-gn export model_final.pkl --out model.onnx
    python examples/onnx_detect.py model.onnx photo.jpg drawing.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


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


def detect(session, image):
    """The outputs of the network by name, for a BGR picture [H, W, 3] uint8 as cv2.imread gives it."""
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"image": image})))


def draw(image, found, names, min_score=0.5):
    """A picture with masks, boxes, keypoints and names of what scores at least `min_score`."""
    picture = image.copy()
    for number in np.flatnonzero(found["scores"] >= min_score):
        box, label = found["boxes"][number], int(found["classes"][number])
        colour = tuple(int(value) for value in np.random.default_rng(label).integers(80, 256, 3))
        if "mask_probs" in found:
            mask = paste(found["mask_probs"][number], box, *image.shape[:2])
            picture[mask] = (0.6 * picture[mask] + 0.4 * np.array(colour)).astype(np.uint8)
        for x, y, logit in found["keypoints"][number] if "keypoints" in found else ():
            if logit > 2:
                cv2.circle(picture, (int(x), int(y)), 2, colour, cv2.FILLED)
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour)
        text = f"{names[label]} {found['scores'][number]:.2f}"
        cv2.putText(picture, text, (x1, max(y1 - 3, 9)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return picture


if __name__ == "__main__":
    model, photo, drawing = sys.argv[1:]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    image = cv2.imread(photo)
    cv2.imwrite(drawing, draw(image, detect(session, image), names))
