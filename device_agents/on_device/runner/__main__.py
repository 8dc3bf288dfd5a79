"""
python runner.pyz job.json            run a job; one JSON object a line on standard output, each flushed
python runner.pyz --probe FOLDER      report the device, and which runtimes run FOLDER/probe.onnx or FOLDER/probe.tflite
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from device_agents.on_device.runner.measuring import run_job
from device_agents.on_device.runner.probe import probe


def main(arguments: list[str]) -> None:
    for number in (signal.SIGALRM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if len(arguments) == 2 and arguments[0] == "--probe":
        probe(Path(arguments[1]))
    elif len(arguments) == 1 and not arguments[0].startswith("--"):
        run_job(Path(arguments[0]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
