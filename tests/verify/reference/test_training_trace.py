"""A damaged training trace, or one of another model, is refused in one sentence that names what is wrong and where."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.anchor_targets import AnchorField
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.reference.training_trace import open_trace

# Of tests/verify/parity/test_training.py: what the trace of the narrow network was recorded with.
OPTIONS = (
    "MODEL.NUM_CLASSES 5 FPN.DIM 32 TRAIN.SCALES (160,) TRAIN.MAX_SIZE 256 FAST_RCNN.MLP_HEAD_DIM 64 NUM_GPUS 1 "
    "MRCNN.DIM_REDUCED 32 RESNETS.WIDTH_PER_GROUP 8 GROUP_NORM.NUM_GROUPS 8 FAST_RCNN.CONV_HEAD_DIM 32"
)
RECORD_AGAIN = "record the run again as docs/training_traces.md describes"
OTHER_MODEL = "is the trace of another model?"


@pytest.fixture(scope="module")
def cfg():
    return bundled_config("scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", OPTIONS.split())


@pytest.fixture(scope="module")
def shapes(cfg):
    """The shapes of the model's parameters by blob name."""
    with torch.device("meta"):
        model = build_detector(cfg)
    parameters = dict(model.named_parameters())
    return {row.blob: tuple(parameters[row.parameter].shape) for row in BlobTable.from_model(model).rows}


@pytest.fixture(scope="module")
def anchors(cfg):
    return len(AnchorField(cfg).anchors)


@pytest.fixture
def copy(data, tmp_path):
    """A copy of the sampled trace that may be written to."""
    path = tmp_path / "copy.h5"
    shutil.copyfile(data / "train_gn_sampled.h5", path)
    path.chmod(0o644)
    return path


@pytest.fixture
def read(cfg, shapes, anchors):
    """Reads everything that a replay asks a trace for."""

    def read_all(path):
        with open_trace(path) as trace:
            trace.check_blobs(shapes, shapes)
            for iteration in trace.iterations:
                iteration.loss("loss_cls")
                iteration.anchors(cfg, anchors)
                iteration.rois(cfg)
                for blob, shape in shapes.items():
                    iteration.update(blob, shape)
            return [trace.final(blob, shape) for blob, shape in shapes.items()]

    return read_all


def refused(read, path, *parts):
    """The file is refused in one sentence that holds these parts, one after another."""
    with pytest.raises(InputError) as error:
        read(path)
    sentence = str(error.value)
    assert "\n" not in sentence and sentence.startswith(str(path))
    place = 0
    for part in parts:
        assert part in sentence[place:], sentence
        place = sentence.index(part, place) + len(part)


def replaced(path, key, change):
    """Put what `change` makes of a dataset's values in its place, attributes as they were."""
    with h5py.File(path, "r+") as file:
        attributes, values = dict(file[key].attrs), change(file[key][()])
        del file[key]
        file[key] = values
        file[key].attrs.update(attributes)


def test_the_embedded_trace_is_read(copy, read, cfg, anchors):
    assert len(read(copy)) == 223
    with open_trace(copy) as trace:
        first = trace.iterations[0]
        assert len(trace.iterations) == 2
        assert first.images == (("000000200000.png", False), ("000000200001.png", False))
        assert first.lr == np.float32(0.005 / 3)
        # 5 objects, the masks' RoIs; 96 RoIs of two images; 64 anchors of either.
        rois = first.rois(cfg)
        assert (len(rois.rois), len(rois.masks.rois), int((rois.labels > 0).sum())) == (96, 5, 5)
        assert [len(sample.anchors) for sample in first.anchors(cfg, anchors)] == [64, 64]
        update = first.update("conv1_w", (64, 3, 7, 7))
        assert (len(update.values), update.stride) == (64, 147)
        assert trace.final_momentum("conv1_w", (64, 3, 7, 7)) is not None


def test_a_file_of_another_kind_is_named(read, data, tmp_path):
    path = tmp_path / "trace.h5"
    refused(read, path, "no such reference file", "give a training trace")
    path.write_text("<html>")
    refused(read, path, "is not an HDF5 reference file", "give a training trace")
    refused(read, data / "ops.h5", "holds no training iteration: give a training trace of Detectron")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(copy, read, share):
    whole = copy.read_bytes()
    copy.write_bytes(whole[: int(share * len(whole))])
    refused(read, copy, "is not an HDF5 reference file", "give a training trace")


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        (["iter0", "iter1"], ["holds no training iteration: give a training trace"]),
        (["final"], ["holds no training iteration: give a training trace"]),
        (["iter0"], ["holds no training iteration"]),
        (["final/fc6_w", "final/conv1_w"], [": final lacks ", "conv1_w", RECORD_AGAIN]),
        (["iter1/rois"], ["has no rois in /iter1: a trace of random sampling must hold the sampled minibatch",
          "give the options that it had (--set TRAIN.RPN_BATCH_SIZE_PER_IM and "]),
        (["iter0/rpn_labels_int32_wide_fpn4"], ["has no rpn_labels_int32_wide_fpn4 in /iter0"]),
        (["iter1/masks_int32"], ["has no masks_int32 in /iter1"]),
    ],
)
def test_what_is_lacking_is_named(copy, read, keys, parts):
    with h5py.File(copy, "r+") as file:
        for key in keys:
            del file[key]
    refused(read, copy, *parts)


def test_an_iteration_that_is_lacking_among_others_is_named(copy, read):
    with h5py.File(copy, "r+") as file:
        file.move("iter1", "iter3")
    refused(read, copy, "holds iter3, but no iter1", RECORD_AGAIN)


def test_what_is_no_group_is_named(copy, read):
    with h5py.File(copy, "r+") as file:
        del file["iter1"]
        file["iter1"] = 3.0
    refused(read, copy, "iter1 is no group", RECORD_AGAIN)


def test_an_iteration_without_updates_is_nothing_to_compare(copy, read):
    with h5py.File(copy, "r+") as file:
        for name in [name for name in file["iter1"] if name.endswith("_grad")]:
            del file["iter1"][name]
    refused(read, copy, "iter1 holds no update (PARAMETER_grad)", "there is nothing to compare", OTHER_MODEL)


@pytest.mark.parametrize("name", ["images", "flipped", "lr", "loss_cls"])
def test_an_attribute_that_is_lacking_is_named(copy, read, name):
    with h5py.File(copy, "r+") as file:
        del file["iter1"].attrs[name]
    refused(read, copy, f"iter1: attribute {name} is missing", RECORD_AGAIN)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("images", "one.png", "is one.png, not a list of file names"),
        ("images", [1, 2], "is [1, 2], not a list of file names"),
        ("images", np.zeros(0), "is [], not a list of file names"),
        ("images", np.array([b"\xff\xfe", b"b"]), "not text in UTF-8"),
        ("images", h5py.Empty("f"), "not a list of file names"),
        ("flipped", [0, 1, 0], "is [0, 1, 0], not one flag per image (2)"),
        ("flipped", "no", "is no, not one flag per image"),
        ("flipped", [0, 7], "is [0, 7], not one flag per image"),
        ("lr", "fast", "is fast, not a number"),
        ("lr", float("nan"), "is nan, not a number"),
        ("lr", [0.1, 0.2], "is [0.1, 0.2], not a number"),
        ("loss_cls", float("inf"), "is inf, not a number"),
        ("loss_cls", h5py.Empty("f"), "not a number"),
    ],
)
def test_an_attribute_of_another_kind_is_named(copy, read, name, value, told):
    with h5py.File(copy, "r+") as file:
        file["iter0"].attrs[name] = value
    refused(read, copy, f"iter0: attribute {name} ", told, RECORD_AGAIN)


def test_scalars_of_caffe2_that_are_arrays_of_one_value_are_read(copy, read):
    with h5py.File(copy, "r+") as file:
        for name in ("lr", "loss_cls"):
            file["iter0"].attrs[name] = np.array([file["iter0"].attrs[name]])
    read(copy)
    with open_trace(copy) as trace:
        assert trace.iterations[0].lr == np.float32(0.005 / 3)


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("iter0/fc6_w_grad", lambda v: v[:-1], "iter0: fc6_w_grad holds 63 values at stride 1569, the model's blob is"),
        ("iter0/fc6_b_grad", lambda v: np.array(["x"] * 64, dtype="S1"), "iter0: fc6_b_grad holds |S1, not numbers"),
        ("final/fc6_b", lambda v: v[:3], "final: fc6_b holds 3 values at stride 1, the model's blob is 64"),
        ("final/fc6_b", lambda v: h5py.Empty("f"), "final: fc6_b holds nothing"),
        ("iter1/rois", lambda v: v[:, 1:], "iter1: rois is 96x4, not [R, 5] with a RoI at least"),
        ("iter1/rois", lambda v: v[:0], "iter1: rois is 0x5, not [R, 5] with a RoI at least"),
        ("iter1/rois", lambda v: v * np.nan, "iter1: rois holds values that are not finite"),
        ("iter1/rois", lambda v: v.astype("f8") * 1e300, "iter1: rois holds values that are not finite"),
        ("iter1/rois", lambda v: v + [7, 0, 0, 0, 0], "rois (column 0, the image) holds other values than 0 to 1"),
        ("iter1/mask_rois", lambda v: v.reshape(-1), "iter1: mask_rois is "),
        ("iter1/labels_int32", lambda v: v[:-1], "iter1: labels_int32 is 95, not 96"),
        ("iter1/labels_int32", lambda v: v + 4, "iter1: labels_int32 holds other values than 0 to 4"),
        ("iter1/labels_int32", lambda v: v + 0.5, "iter1: labels_int32 holds other values than 0 to 4"),
        ("iter1/bbox_targets", lambda v: v[:, :16], "iter1: bbox_targets is 96x16, not 96x5x4"),
        ("iter1/bbox_inside_weights", lambda v: v.T, "iter1: bbox_inside_weights is 20x96, not 96x5x4"),
        ("iter1/masks_int32", lambda v: v[:, :-5], "iter1: masks_int32 is "),
        ("iter1/masks_int32", lambda v: v + 2, "iter1: masks_int32 holds other values than -1 to 1"),
        ("iter1/rpn_labels_int32_wide_fpn3", lambda v: v[:1], "iter1: rpn_labels_int32_wide_fpn3 is 1x3x32x32, not"),
        ("iter1/rpn_labels_int32_wide_fpn3", lambda v: v[0], "iter1: rpn_labels_int32_wide_fpn3 is 3x32x32, not"),
        ("iter1/rpn_labels_int32_wide_fpn3", lambda v: v - 9, "rpn_labels_int32_wide_fpn3 holds other values than -1"),
        ("iter1/rpn_bbox_targets_wide_fpn3", lambda v: v[..., 1:], "iter1: rpn_bbox_targets_wide_fpn3 is 2x12x32x31"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_dataset_of_another_shape_or_type_is_named(copy, read, key, change, told):
    replaced(copy, key, change)
    refused(read, copy, told)


def test_anchors_of_another_size_of_images_are_named(copy, read):
    for name in ("rpn_labels_int32_wide_fpn6", "rpn_bbox_targets_wide_fpn6"):
        replaced(copy, f"iter0/{name}", lambda values: values[..., :3])
    refused(read, copy, "cover 16356 anchors, the model has 16368", "is TRAIN.MAX_SIZE that of the trace?")


@pytest.mark.parametrize(
    ("attribute", "value", "told"),
    [
        ("stride", 3, "holds 64 values at stride 3"),
        ("stride", 0, "holds 64 values at stride 0"),
        ("stride", "x", "cannot be read (its attribute stride is x)"),
        ("stride", float("inf"), "cannot be read (its attribute stride is inf)"),
        ("shape", [64, 64], "is of a blob 64x64, the model's is 64"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_stride_or_shape_that_does_not_fit_is_named(copy, read, attribute, value, told):
    with h5py.File(copy, "r+") as file:
        file["final/fc6_b"].attrs[attribute] = value
    refused(read, copy, "final: fc6_b ", told)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_bytes_are_changed_the_trace_is_read_or_refused(copy, read, seed):
    random = np.random.RandomState(seed)
    content = bytearray(copy.read_bytes())
    for place in random.randint(0, 60_000, size=(1, 30)[seed % 2]):
        content[place] = random.randint(256)
    copy.write_bytes(content)
    try:
        read(copy)
    except InputError as error:
        assert "copy.h5" in str(error) and "\n" not in str(error)
