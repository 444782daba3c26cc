"""What Detectron, detectron2, maskrcnn-benchmark and others call the commands and options of this one."""

from __future__ import annotations

from collections.abc import Container

# What other programs call a command of ours.
COMMANDS = {
    "list": "models", "ls": "models", "zoo": "models", "fetch": "download", "get": "download", "info": "inspect",
    "show": "inspect", "predict": "detect", "infer": "detect", "inference": "detect", "infer_simple": "detect",
    "visualize_results": "detect", "eval": "test", "evaluate": "test", "val": "test", "test_net": "test",
    "reval": "score", "finetune": "train", "fit": "train", "train_net": "train", "compare": "verify",
    "check": "verify", "convert_pkl_to_pb": "export", "version": "--version",
}  # fmt: skip

_PROCESSES = "start it with `torchrun --nproc_per_node N -m detectron_gn`, a process per GPU"
_FINDS_ITSELF = "leave it out: torchrun says so itself"

# What their options are here: the first one that the command has counts. An option or an argument stands under its
# name; all else is a sentence.
_OPTIONS: dict[str, tuple[str, ...]] = {
    # Detectron's tools.
    "--cfg": ("--config",),
    "--wts": ("SOURCE", "--weights"),
    "--output-dir": ("--out",),
    "--image-ext": ("give a pattern in place of a folder, such as 'photos/*.jpg'",),
    "--im": ("INPUT", "--images"),
    "--im_or_folder": ("INPUT", "--images"),
    "--im-or-folder": ("INPUT", "--images"),
    "--thresh": ("--min-score",),
    "--kp-thresh": ("leave it out: keypoints above a logit of 2 are drawn",),
    "--always-out": ("leave it out: a picture is written of every image",),
    "--output-ext": ("leave it out: pictures are .png files",),
    "--rpn-pkl": ("--proposals",),
    "--rpn-cfg": ("--proposals",),
    "--multi-gpu-testing": (_PROCESSES,),
    "--skip-test": ("leave --eval-annotations out",),
    "--range": (_PROCESSES,),
    "--vis": ("--pictures", "use the command `detect`, with --pictures"),
    "--wait": ("leave it out",),
    "--dataset": ("--annotations",),
    "--detections": ("RESULTS.json", "SOURCE"),
    # detectron2 and maskrcnn-benchmark.
    "--config-file": ("--config",),
    "--opts": ("--set",),
    "--input": ("INPUT", "--images"),
    "--video-input": ("INPUT",),
    "--output": ("--out",),
    "--output_dir": ("--out",),
    "--confidence-threshold": ("--min-score",),
    "--num-gpus": (_PROCESSES,),
    "--num-machines": (_PROCESSES,),
    "--machine-rank": (_FINDS_ITSELF,),
    "--dist-url": (_FINDS_ITSELF,),
    "--local_rank": (_FINDS_ITSELF,),
    "--local-rank": (_FINDS_ITSELF,),
    "--eval-only": ("use the command `test`",),
    "--ckpt": ("SOURCE", "--weights"),
    "--min-image-size": ("--set TEST.SCALE N",),
    # What torchvision's scripts and others have.
    "--model": ("SOURCE", "--weights"),
    "--checkpoint": ("SOURCE", "--weights"),
    "--score-thresh": ("--min-score",),
    "--conf": ("--min-score",),
    "--gpu": ("--device",),
    "--gpu-id": ("--device",),
    "--batch-size": ("--batch", "--set TRAIN.IMS_PER_BATCH N"),
    "--lr": ("--set SOLVER.BASE_LR X",),
}

# Keys of Detectron's configuration that are an option or an argument here.
_KEYS = {
    "OUTPUT_DIR": ("--out",),
    "TEST.WEIGHTS": ("SOURCE",),
    "TRAIN.WEIGHTS": ("--weights",),
    "TEST.DATASETS": ("--annotations",),
    "TRAIN.DATASETS": ("--annotations",),
}


def here(option: str, known: Container[str]) -> str | None:
    """What an option of another program is here, in a few words; None for one that nobody has.

    Args:
        known: the options of the command, and the names of its arguments.
    """
    return next((_worded(option, meant) for meant in _OPTIONS.get(option, ()) if _has(meant, known)), None)


def bare_key(key: str, known: Container[str]) -> str:
    """What to do with a key of Detectron's configuration that stands on the command line by itself.

    Args:
        known: as for `here`.
    """
    meant = next((meant for meant in _KEYS.get(key, ()) if _has(meant, known)), None)
    if meant is not None:
        return _worded(key, meant)
    return f"put --set before {key}" if "--set" in known else f"{key}: this command takes no keys of a configuration"


def _has(meant: str, known: Container[str]) -> bool:
    return meant.partition(" ")[0] in known if _is_name(meant) else True


def _worded(name: str, meant: str) -> str:
    if not _is_name(meant):
        return f"{name}: {meant}"
    return f"here {name} is {meant}" if meant.startswith("--") else f"here {name} is {meant}, without an option"


def _is_name(meant: str) -> bool:
    """Whether it is an option or an argument, and no sentence."""
    return meant.startswith("--") or meant in ("SOURCE", "INPUT", "RESULTS.json")
