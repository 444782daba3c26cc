"""What every test shares: one torch thread, and where the reference data lies."""

import lzma
import os
import signal
from pathlib import Path

import pytest

import detectron_gn
from tests.helpers.command_line import Run

ROOT = Path(__file__).resolve().parents[1]

# Before torch is imported: sums in a fixed order, and no fight over cores when tests start processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def signals_as_in_a_terminal() -> None:
    """Nothing is ignored, although the tests themselves may have been started in the background or by nohup."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with the reference values that travel with the tests."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The embedded model, its images and what Detectron found in them."""
    return ROOT / "verify" / "demo_model"


@pytest.fixture(scope="session")
def pickle(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model as Detectron saved it."""
    path = tmp_path_factory.mktemp("model") / "model_final.pkl"
    path.write_bytes(lzma.decompress((demo_model / "model_final.pkl.xz").read_bytes()))
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the large reference data; tests that ask for it are skipped where it is absent."""
    folder = Path(os.environ.get("DETECTRON_GN_SHARED") or ROOT.parent / "shared")
    if not (folder / "parity").is_dir():
        pytest.skip(f"no reference data in {folder}; DETECTRON_GN_SHARED names another folder")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; gives the exit code, what it printed, and its errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = detectron_gn.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return (code, *capsys.readouterr())

    return run
