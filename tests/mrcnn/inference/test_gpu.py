"""Detection and training on a GPU against the CPU; on a pretended GPU where there is none."""

import cv2
import pytest
import torch

from detectron_gn.mrcnn.data.minibatch import minibatches
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import GeneralizedRCNN, build_detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
from detectron_gn.mrcnn.ops.boxes import box_overlaps
from detectron_gn.mrcnn.training.loop import minibatch_numbers, train
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.runs.load import load_model
from tests.helpers.pretended_gpu import DEVICE, pretended_gpu
from tests.helpers.small_run import config, dataset

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


@pytest.mark.parametrize(
    "mixed",
    [
        lambda device, host: device + host,
        lambda device, host: host[device.long()],
        lambda device, host: torch.stack((device[0], host[0])),
        lambda device, host: host.index_add(0, device.long(), device),
    ],
)
def test_a_pretended_gpu_refuses_tensors_of_both_sides(mixed):
    with pretended_gpu(), pytest.raises(RuntimeError, match="on the host and on the device"):
        mixed(torch.zeros(3).to(DEVICE), torch.zeros(3))


@pytest.mark.parametrize(
    "waiting",
    [
        lambda device: device[device > 2],
        lambda device: device.nonzero(),
        lambda device: device.cpu(),
        lambda device: bool(device.any()),
        lambda device: device[torch.tensor([0, 1])],
        lambda device: torch.tensor([1.0], device=device.device),
    ],
)
def test_a_pretended_gpu_counts_what_the_host_waits_for(waiting):
    with pretended_gpu() as waits:
        device = torch.arange(4.0).to(DEVICE)
        (device * 2).sum()
        assert not waits
        waiting(device)
        assert waits


def without_inference_mode(monkeypatch):
    """Tensors of an inference cannot be wrapped."""
    for name in ("start_batch", "detect_dynamic"):
        monkeypatch.setattr(GeneralizedRCNN, name, torch.no_grad()(getattr(GeneralizedRCNN, name).__wrapped__))


@pytest.mark.slow
def test_detection_on_a_device_is_asked_for_without_waiting(pickle, images, monkeypatch):
    without_inference_mode(monkeypatch)
    on_cpu, elsewhere = (load_model(pickle, device="cpu") for _ in range(2))
    with pretended_gpu() as waits:
        elsewhere.to(DEVICE)
        for image in images[:3]:
            batch = elsewhere.network_input([image])
            wait = elsewhere.start_batch(batch)
            assert not waits
            assert_near(wait()[0], on_cpu.detect(image), box=1e-3)
            waits.clear()


@pytest.mark.parametrize("key", ["TEST.SOFT_NMS.ENABLED", "TEST.BBOX_VOTE.ENABLED"])
def test_detection_with_as_many_boxes_as_there_are_runs_on_a_device_too(key, pickle, images, monkeypatch):
    without_inference_mode(monkeypatch)
    on_cpu, elsewhere = (load_model(pickle, overrides=[key, "True"], device="cpu") for _ in range(2))
    with pretended_gpu() as waits:
        elsewhere.to(DEVICE)
        found = elsewhere.detect(images[0])
        assert waits["aten.nonzero.default"]
    assert_near(found, on_cpu.detect(images[0]), box=1e-3)


def test_training_on_a_device_gives_the_losses_of_the_cpu(monkeypatch):
    cpu = iterations(torch.device("cpu"))
    monkeypatch.setattr("detectron_gn.mrcnn.training.samplers.torch", TorchWithGeneratorsOnTheHost())
    with pretended_gpu():
        elsewhere = iterations(DEVICE)
    for ours, expected in zip(elsewhere, cpu, strict=True):
        assert ours == pytest.approx(expected, rel=1e-3, abs=1e-4)


class TorchWithGeneratorsOnTheHost:
    """torch, but that random numbers for the device come from the host."""

    def __getattr__(self, name):
        return (lambda _device: torch.Generator("cpu")) if name == "Generator" else getattr(torch, name)


def iterations(device):
    cfg = config("SOLVER.MAX_ITER", "2")
    torch.manual_seed(0)
    model = build_detector(cfg).train().to(device)
    ranks = Ranks(0, 1, device)
    solver = MomentumSGD.from_config(model, cfg)
    roidb = training_roidb([dataset()], cfg)
    loader = minibatches(roidb, cfg, cfg.RNG_SEED, minibatch_numbers(cfg, 0, ranks), workers=0)
    return [result.outputs for result in train(model, solver, loader, 0, ranks)]
