"""Examples of each command of `netadapt`, which its help and the documentation print."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "networks": ("netadapt networks", "netadapt networks --resolution 128 --json"),
    "plan": (
        "netadapt plan mobilenet_v1 --resolution 128 -o plan.json",
        "netadapt plan mynet.py:make_net --input 1x3x64x64 -o plan.json",
    ),
    "run": (
        "netadapt run mobilenet_v1 --data digits --table table.parquet -b latency=60% -o run",
        "netadapt run mynet.py:make_net --data folder:images -b macs=50% -o run",
    ),
    "resume": ("netadapt resume run", "netadapt resume run --max-iterations 60"),
    "supernet": (
        "netadapt supernet mobilenet_v1 --data digits -o supernet",
        "netadapt run mobilenet_v1 --data digits -b macs=60% --search descent --supernet supernet -o run",
    ),
    "supernet-check": ("netadapt supernet-check supernet --shapes 30",),
    "history": ("netadapt history run",),
    "finetune": ("netadapt finetune run", "netadapt finetune run --step 3 --epochs 10"),
    "measure": ("netadapt measure run", "netadapt measure run -d ssh:jetson -r onnxruntime"),
    "baselines": ("netadapt baselines run --seeds 3",),
    "export": ("netadapt export run --format tflite", "netadapt export run --format onnx --precision int8"),
    "densities": (
        "netadapt densities run -o densities.json",
        "netadapt densities mobilenet_v1 --weights trained.pt --data folder:images -o densities.json",
    ),
    "prune-weights": (
        "netadapt prune-weights run -o sparse",
        "netadapt prune-weights mobilenet_v1 --data digits --energy 50% --export onnx -o sparse",
    ),
    "compressed-size": ("netadapt compressed-size run", "netadapt compressed-size run --weights sparse/energy-aware-03.pt"),
    "report": ("netadapt report run",),
    "demo": ("netadapt demo -o runs/demo",),
}
"""By the command's name."""
