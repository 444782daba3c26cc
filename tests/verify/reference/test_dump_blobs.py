"""The script that users run in their own Detectron environment, which may be Python 2.7 with nothing of ours."""

import ast
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "verify" / "reference" / "dump_blobs.py"
TREE = ast.parse(SCRIPT.read_text(encoding="utf-8"))


def test_it_needs_nothing_but_detectron_numpy_and_h5py():
    imported = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    # OpenCV, PyYAML and Caffe2 are what Detectron itself needs.
    assert imported - set(sys.stdlib_module_names) == {"cv2", "h5py", "numpy", "yaml", "caffe2", "detectron"}


def test_it_is_written_in_what_python_2_understands():
    newer = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Nonlocal, ast.AsyncFunctionDef, ast.YieldFrom)
    for node in ast.walk(TREE):
        assert not isinstance(node, newer)
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            assert node.returns is None and not node.args.kwonlyargs
            assert all(argument.annotation is None for argument in arguments)
    assert SCRIPT.read_bytes().isascii()
