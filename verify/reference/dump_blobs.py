"""Writes what Caffe2 Detectron computes for some images into an HDF5 reference file, to compare a port with.

Runs inside your own Detectron environment, under Python 2.7 or 3, and needs numpy and h5py besides Detectron. It
imports nothing of detectron-gn: copy this one file to the machine that has Detectron. The layout of the file it
writes is described in docs/reference_layout.md.

    python dump_blobs.py --cfg e2e_mask_rcnn_R-50-FPN_2x_gn.yaml --wts model_final.pkl \
        --out blobs.h5 --images 000000000139.jpg 000000000285.jpg

and then, where detectron-gn is:

    detectron-gn verify blobs model_final.pkl --reference blobs.h5 --images val2017

A model without an RPN (Fast R-CNN) also takes --proposals, the rpn_proposals.pkl of these images, which must be named
by their ids as COCO's are.
"""

from __future__ import absolute_import, division, print_function

import argparse
import hashlib
import os
import sys

import cv2  # before caffe2, as in Detectron's own tools
import detectron.core.rpn_generator as rpn_generator
import detectron.core.test as detectron_test
import detectron.core.test_engine as test_engine
import detectron.modeling.model_builder as model_builder
import detectron.utils.boxes as box_utils
import detectron.utils.c2 as c2_utils
import detectron.utils.env as envu
import detectron.utils.net as net_utils
import h5py
import numpy as np
import yaml
from caffe2.proto import caffe2_pb2
from caffe2.python import core, workspace
from detectron.core.config import assert_and_infer_cfg, cfg, merge_cfg_from_file, merge_cfg_from_list
from detectron.utils.io import load_object

SCOPE = 'gpu_0/'

# Blobs that are always kept whole: with other RoIs than these nothing that follows could be compared.
WHOLE = ('im_info', 'rois', 'mask_rois', 'keypoint_rois', 'rpn_rois', 'rpn_roi_probs')

# What the names of the blobs of a pass over detections hold.
SECOND_PASS = ('mask', 'keypoint', 'pose', 'kps')

TEXT = h5py.special_dtype(vlen=bytes)


def parse_args():
    parser = argparse.ArgumentParser(
        description='Dump the blobs and detections of Caffe2 Detectron for detectron-gn verify blobs.'
    )
    parser.add_argument('--cfg', required=True, help='YAML file of the model')
    parser.add_argument('--wts', required=True, help='weights, a .pkl file')
    parser.add_argument('--out', required=True, help='the HDF5 file to write')
    parser.add_argument('--images', required=True, nargs='+', help='image files')
    parser.add_argument('--opts', nargs='*', default=[], metavar='KEY VALUE', help='override keys of the YAML')
    parser.add_argument(
        '--values', type=int, default=512, help='values kept of a large blob, evenly spread; 0 keeps all (default 512)'
    )
    parser.add_argument('--proposals', metavar='P.pkl', help='rpn_proposals.pkl, for a model without an RPN')
    parser.add_argument('--cpu', action='store_true', help="run Caffe2's CPU operators: slow, but without a GPU")
    return parser.parse_args()


def main():
    args = parse_args()
    names = [os.path.basename(path) for path in args.images]
    if len(set(names)) < len(names):
        sys.exit('two images have the same name: images are known by their file names, so dump them apart')
    images = [read_image(path) for path in args.images]
    model = load_model(args)
    proposals = read_proposals(args.proposals, names, images)
    unfinished = args.out + '.part'
    with h5py.File(unfinished, 'w') as reference:
        reference.attrs['cfg'] = os.path.basename(args.cfg)
        reference.attrs['opts'] = ' '.join(args.opts)
        reference.attrs['weights'] = os.path.basename(args.wts)
        reference.attrs.create('weights_sha256', texts(digests(model)), dtype=TEXT)
        for name, image, given in zip(names, images, proposals):
            count = dump_image(model, image, given, reference.create_group(name), args.values)
            print('{}: {} {}'.format(name, count, 'proposals' if cfg.MODEL.RPN_ONLY else 'detections'))
    os.rename(unfinished, args.out)
    print(args.out)


def read_image(path):
    image = cv2.imread(path)
    if image is None:
        sys.exit('{} is missing or is not an image'.format(path))
    return image


def load_model(args):
    """The test network with its weights in the workspace."""
    cv2.resize = to_whole_pixels(cv2.resize)
    if args.cpu:
        c2_utils.CudaDevice = lambda gpu_id: core.DeviceOption(caffe2_pb2.CPU)
    if hasattr(yaml, 'UnsafeLoader'):
        # From PyYAML 5.1 on plain `load` refuses the configuration inside Detectron's pickles, which are trusted here.
        envu.yaml_load = lambda text: yaml.load(text, Loader=yaml.UnsafeLoader)
    workspace.GlobalInit(['caffe2', '--caffe2_log_level=0'])
    c2_utils.import_detectron_ops()
    merge_cfg_from_file(args.cfg)
    merge_cfg_from_list(args.opts)
    cfg.NUM_GPUS = 1
    cfg.TRAIN.WEIGHTS = ''
    cfg.TEST.WEIGHTS = args.wts
    if args.proposals:
        cfg.TEST.PROPOSAL_FILES = (args.proposals,)
        cfg.TEST.DATASETS = ('coco_2014_minival',)  # Detectron asks for a file for each
    assert_and_infer_cfg(cache_urls=False)
    if not takes_proposals() and args.proposals:
        sys.exit('the model makes its own proposals or needs none: leave --proposals out')
    if takes_proposals() and not args.proposals:
        sys.exit('the model has no RPN (MODEL.FASTER_RCNN is False): give --proposals')
    if not cfg.MODEL.RPN_ONLY:
        return test_engine.initialize_model_from_cfg(args.wts, gpu_id=0)
    model = model_builder.create(cfg.MODEL.TYPE, train=False, gpu_id=0)
    net_utils.initialize_gpu_from_weights_file(model, args.wts, gpu_id=0)
    model_builder.add_inference_inputs(model)
    workspace.CreateNet(model.net)
    return model


def to_whole_pixels(resize):
    """Detectron gives the size of an enlarged heatmap as floats of whole numbers, which newer OpenCV refuses."""

    def resized(image, dsize, *args, **kwargs):
        return resize(image, dsize and tuple(int(side) for side in dsize), *args, **kwargs)

    return resized


def digests(model):
    """NAME SHA256 of every parameter that the network holds, by which a comparison knows other weights."""
    lines = []
    for scoped in sorted({str(parameter) for parameter in model.params}):
        value = np.ascontiguousarray(workspace.FetchBlob(scoped), dtype='<f4')
        lines.append('{} {}'.format(scoped[len(SCOPE):], hashlib.sha256(value.tobytes()).hexdigest()).encode('ascii'))
    return lines


def texts(lines):
    return np.array(lines, dtype=TEXT)


def takes_proposals():
    return not (cfg.MODEL.FASTER_RCNN or cfg.MODEL.RPN_ONLY or cfg.RETINANET.RETINANET_ON)


def read_proposals(path, names, images):
    """Of each image what a data set would make of its proposals (datasets/json_dataset.py); None without a file."""
    if path is None:
        return [None] * len(names)
    stored = load_object(path)
    ids = list(stored['indexes' if 'indexes' in stored else 'ids'])
    found = []
    for name, image in zip(names, images):
        number = os.path.splitext(name)[0].rpartition('_')[2]
        if not number.isdigit() or int(number) not in ids:
            sys.exit('{}: {} holds no proposals for it; images are named by their ids'.format(name, path))
        boxes = np.asarray(stored['boxes'][ids.index(int(number))])
        boxes = box_utils.clip_boxes_to_image(boxes, image.shape[0], image.shape[1])
        boxes = boxes[box_utils.unique_boxes(boxes)]
        boxes = boxes[box_utils.filter_small_boxes(boxes, 2)]
        limit = cfg.TEST.PROPOSAL_LIMIT
        found.append((boxes[:limit] if limit > 0 else boxes).astype(np.float32))
    return found


def dump_image(model, image, proposals, group, values):
    """Run all passes over an image as Detectron's im_detect_all does, and keep what they leave behind."""
    parameters = {str(parameter) for parameter in model.params}
    group.attrs['shape'] = image.shape
    with c2_utils.NamedCudaScope(0):
        forget_second_pass(parameters)
        count = find(model, image, proposals, group)
    blobs = group.create_group('blobs')
    for scoped in workspace.Blobs():
        if scoped.startswith(SCOPE) and scoped not in parameters:
            value = workspace.FetchBlob(scoped)
            if isinstance(value, np.ndarray) and value.dtype != object and value.size:
                name = scoped[len(SCOPE):]
                put(blobs, name, value, 0 if name.startswith(WHOLE) else values)
    return count


def find(model, image, proposals, group):
    """Keep what is found in an image, and how many there are of it."""
    if cfg.MODEL.RPN_ONLY:
        boxes, scores = rpn_generator.im_proposals(model, image)
        group.attrs['im_scale'] = float(workspace.FetchBlob(SCOPE + 'im_info')[0, 2])
        put(group, 'proposals', boxes)
        put(group, 'proposal_scores', scores)
        return len(scores)
    if cfg.RETINANET.RETINANET_ON:
        # It has neither RoIs nor masks, and its own selection of detections.
        class_boxes = detectron_test.im_detect_all(model, image, None)[0]
        group.attrs['im_scale'] = float(workspace.FetchBlob(SCOPE + 'im_info')[0, 2])
        rows = np.vstack([np.reshape(class_boxes[c], (-1, 5)) for c in range(1, cfg.MODEL.NUM_CLASSES)])
        det_boxes, det_scores = rows[:, :4].astype(np.float32), rows[:, 4].astype(np.float32)
    else:
        scores, boxes, scale = detectron_test.im_detect_bbox(
            model, image, cfg.TEST.SCALE, cfg.TEST.MAX_SIZE, boxes=proposals
        )
        group.attrs['im_scale'] = scale
        put(group, 'scores', scores)
        put(group, 'boxes', boxes)
        if proposals is not None:
            put(group, 'proposals', proposals)
        det_scores, det_boxes, class_boxes = detectron_test.box_results_with_nms_and_limit(scores, boxes)
    classes = [np.full(len(class_boxes[c]), c, np.int32) for c in range(1, cfg.MODEL.NUM_CLASSES)]
    classes = np.concatenate(classes)
    put(group, 'det_scores', det_scores)
    put(group, 'det_boxes', det_boxes)
    put(group, 'det_classes', classes)
    if cfg.MODEL.MASK_ON and len(det_boxes) > 0:
        masks = detectron_test.im_detect_mask(model, scale, det_boxes)
        channel = classes if cfg.MRCNN.CLS_SPECIFIC_MASK else np.zeros_like(classes)
        put(group, 'masks_of_class', masks[np.arange(len(classes)), channel])
        segms = detectron_test.segm_results(class_boxes, masks, det_boxes, image.shape[0], image.shape[1])
        counts = [rle['counts'] for c in range(1, cfg.MODEL.NUM_CLASSES) for rle in segms[c]]
    else:
        put(group, 'masks_of_class', np.zeros((0, cfg.MRCNN.RESOLUTION, cfg.MRCNN.RESOLUTION), np.float32))
        counts = []
    counts = [text.encode('ascii') if not isinstance(text, bytes) else text for text in counts]
    group.create_dataset('rle_counts', data=texts(counts))
    if cfg.MODEL.KEYPOINTS_ON:
        points = np.zeros((0, 4, cfg.KRCNN.NUM_KEYPOINTS), np.float32)
        if len(det_boxes) > 0:
            heatmaps = detectron_test.im_detect_keypoints(model, scale, det_boxes)
            people = detectron_test.keypoint_results(class_boxes, heatmaps, det_boxes)[1]
            points = np.asarray(people, np.float32).reshape(-1, 4, cfg.KRCNN.NUM_KEYPOINTS)
        put(group, 'keypoints', points)
    return len(det_scores)


def forget_second_pass(parameters):
    """Empty what the second pass over an earlier image left: an image without detections has none of its own."""
    for scoped in workspace.Blobs():
        of_detections = any(part in scoped for part in SECOND_PASS)
        if scoped.startswith(SCOPE) and of_detections and scoped not in parameters:
            workspace.FeedBlob(scoped, np.zeros(0, np.float32))


def put(group, name, value, values=0):
    """Keep an array, or of one with more than `values` elements every stride-th one, its shape and its norm."""
    value = np.asarray(value)
    # An odd stride walks over all channels and columns of a map.
    stride = (-(-value.size // values) | 1) if values and value.size > values else 1
    kept = value if stride == 1 else value.reshape(-1)[::stride]
    packed = {'compression': 'gzip', 'shuffle': True} if kept.size > 64 else {}
    dataset = group.create_dataset(name, data=kept, **packed)
    if stride > 1:
        dataset.attrs['shape'] = value.shape
        dataset.attrs['stride'] = stride
        dataset.attrs['l2'] = float(np.sqrt((value.astype(np.float64) ** 2).sum()))


if __name__ == '__main__':
    main()
