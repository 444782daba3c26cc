"""Detection on a GPU against detection on the CPU; skipped where there is none."""

import cv2
import pytest
import torch

from mrcnn.boxes import box_overlaps
from mrcnn.cuda_graphs import CudaGraphs
from mrcnn.errors import InputError
from port.model_source import load_model

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


@pytest.fixture(scope="module")
def images(demo_model):
    return [cv2.imread(str(path)) for path in sorted((demo_model / "val").iterdir())][:8]


def assert_near(found, expected, score=1e-4, box=1e-2):
    assert len(found) == len(expected)
    overlaps, partners = box_overlaps(torch.from_numpy(expected.boxes), torch.from_numpy(found.boxes)).max(dim=1)
    assert (found.classes[partners] == expected.classes).all()
    assert abs(found.scores[partners] - expected.scores).max(initial=0) < score
    assert abs(found.boxes[partners] - expected.boxes).max(initial=0) < box
    assert abs(found.mask_probs[partners] - expected.mask_probs).max(initial=0) < 1e-2


@needs_gpu
def test_a_gpu_finds_what_the_cpu_finds(pickle, images):
    on_cpu, on_gpu = load_model(pickle, device="cpu"), load_model(pickle, device="cuda")
    for image in images:
        assert_near(on_gpu.detect(image), on_cpu.detect(image))


@needs_gpu
def test_nothing_waits_for_the_gpu(pickle, images):
    model = load_model(pickle, device="cuda")
    batch = model.network_input(images[:1])
    model.start_batch(batch)()
    torch.cuda.set_sync_debug_mode("error")
    try:
        wait = model.start_batch(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(wait()[0]) == len(model.detect(images[0]))


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_cuda_graph_gives_what_the_network_gives(precision, pickle, images):
    model = load_model(pickle, device="cuda", precision=precision)
    graphs = CudaGraphs(model)
    for _ in range(2):
        waits = [model.start_batch(model.network_input([image]), graphs) for image in images]
        for image, wait in zip(images, waits, strict=True):
            assert_near(wait()[0], model.detect(image))
    model.use_precision("fp32")


def test_cuda_graphs_are_refused_on_a_cpu(pickle):
    with pytest.raises(InputError, match="CUDA graphs need an NVIDIA GPU, and this is cpu"):
        CudaGraphs(load_model(pickle, device="cpu"))
