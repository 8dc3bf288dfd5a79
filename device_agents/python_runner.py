"""Packs the Python runner, on_device/runner, into one file that the Python of a device runs: `python runner.pyz job.json`.

python -m device_agents.python_runner runner.pyz        write that file, to run it by hand
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

ON_DEVICE = Path(__file__).parent / "on_device"
"""What is pushed to devices."""
NAME = "runner.pyz"


def packed() -> bytes:
    """The archive, equal bytes for equal modules. Its `__main__` is the runner's; the others keep their names as modules."""
    package, root = ON_DEVICE / "runner", ON_DEVICE.parent.parent
    files = {str(path.relative_to(root)): path.read_bytes() for path in package.rglob("*.py")}
    files["__main__.py"] = files.pop(str((package / "__main__.py").relative_to(root)))
    for parent in (ON_DEVICE, ON_DEVICE.parent):
        files[f"{parent.relative_to(root)}/__init__.py"] = b""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:  # not compressed: another zlib would make other bytes, and a board may have none
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), data)  # its time is 1980
    return packed.getvalue()


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(packed())
