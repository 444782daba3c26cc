"""A wheel of this checkout, and virtual environments to install it in: all of it without a network."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A build reads what earlier builds left, and must not leave anything: it works on a copy without these.
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "out", "__pycache__", "*.egg-info")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program; returns what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def build_sdist(folder: Path) -> Path:
    """The source distribution of this checkout, unpacked; `folder` is new."""
    copy, out = folder / "checkout", folder / "sdist"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    run(sys.executable, "-c", f"from setuptools import build_meta as b; b.build_sdist({str(out)!r})", cwd=copy)
    (archive,) = out.iterdir()
    shutil.unpack_archive(archive, out)
    return out / archive.name.removesuffix(".tar.gz")


def build_wheel(source: Path, out: Path) -> Path:
    """The wheel that pip makes of a folder with a setup.py."""
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--wheel-dir", str(out)]
    run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=source)
    (wheel,) = out.glob("*.whl")
    return wheel


def write_wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel of another project: `{path: text}` in a distribution `name` 1.0."""
    info = f"{name}-1.0.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)
    return wheel


class Environment:
    """A virtual environment that knows nothing of this checkout.

    Args:
        folder: is made.
    """

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        (self.site_packages,) = folder.glob("lib/python*/site-packages")

    def pip(self, *arguments: str | Path) -> None:
        """Run the pip of these tests on this environment."""
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", self.python]
        run(*pip, *arguments, cwd=self.site_packages)

    def share_dependencies(self) -> None:
        """Let it import what the tests' own environment holds, an editable detectron-gn excepted.

        A folder that a .pth file names is searched, but .pth files within it, such as that of an editable
        installation, are not read.
        """
        folders = [path for path in sys.path if Path(path).name == "site-packages"]
        (self.site_packages / "dependencies.pth").write_text("\n".join(folders) + "\n")

    def files(self) -> dict[str, bytes]:
        """Whatever lies in site-packages, by its path there."""
        found = {path.relative_to(self.site_packages): path for path in self.site_packages.rglob("*")}
        return {str(name): path.read_bytes() for name, path in found.items() if path.is_file()}
