"""Packaging of detectron-gn; tool settings are in pyproject.toml, the tested versions in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

# One package is installed. In the repository its rooms are top-level folders beside its front door.
ROOMS = ("mrcnn", "port", "verify", "weights", "yaml_configs")
FOUND = find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)])
PACKAGES = {f"detectron_gn.{name}": name.replace(".", "/") for name in FOUND}
PLOTS = ["matplotlib>=3.8"]
# onnx writes the files, onnxruntime runs them beside the model.
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18"]
DOCS = ["furo>=2024.8", "myst-parser>=4.0", "sphinx>=8.1"]
# What the tests need; nbclient and ipykernel run the notebook of examples/.
TEST = [
    *PLOTS,
    *EXPORT,
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "nbclient>=0.10",
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "setuptools>=77",
]

# Read, not imported: the package may be built where nothing that it needs is installed.
FRONT_DOOR = Path(__file__).with_name("detectron_gn") / "__init__.py"
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', FRONT_DOOR.read_text(encoding="utf-8"), re.MULTILINE)

setup(
    name="detectron-gn",
    version=VERSION,
    description="The models of Caffe2 Detectron, exactly, in PyTorch",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    # Whose models these are; the project's own address is wherever it was fetched from.
    project_urls={"Detectron's models": "https://github.com/facebookresearch/Detectron/blob/main/MODEL_ZOO.md"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    keywords=["Caffe2", "Detectron", "Group Normalization", "instance segmentation", "Mask R-CNN", "object detection"],
    python_requires=">=3.10",
    packages=["detectron_gn", *PACKAGES],
    package_dir={"detectron_gn": "detectron_gn", **PACKAGES},
    package_data={
        "detectron_gn": ["py.typed"],
        "detectron_gn.verify": ["demo_model/*", "demo_model/val/*"],
        "detectron_gn.verify.report": ["*.css", "*.j2"],
        "detectron_gn.weights": ["*.yaml"],
        "detectron_gn.yaml_configs": ["*.yaml", "*/*.yaml"],
    },
    install_requires=[
        "argcomplete>=3.5",
        "filelock>=4.1",
        "h5py>=3.11",
        "Jinja2>=3.1",
        "numpy>=1.26",
        "opencv-python-headless>=4.10",
        "orjson>=3.10",
        "pycocotools>=2.0.8",
        "pyyaml>=6.0.1",
        "requests>=2.31",
        "safetensors>=0.4.3",
        "torch>=2.6",
        "tqdm>=4.64",
        "urllib3>=2.2",
    ],
    extras_require={
        # The pictures of a training run and of benchmarks/growth.py; without it training goes on and says so.
        "plots": PLOTS,
        # `export` to .onnx, which says so where they are missing.
        "export": EXPORT,
        # `make docs`: the documentation as a site.
        "docs": DOCS,
        "test": TEST,
        # What changes of this project are made with: the tests, and `make lint`.
        "dev": [*TEST, *DOCS, "mypy>=1.18", "ruff>=0.12", "types-PyYAML", "types-requests", "types-tqdm"],
    },
    entry_points={"console_scripts": ["detectron-gn = detectron_gn:main"]},
)
