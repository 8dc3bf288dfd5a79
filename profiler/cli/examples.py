"""Examples of each command of `profile`, which its help and the documentation print."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "devices": ("profile devices", "profile devices --json"),
    "hardware": ("profile hardware", "profile hardware eyeriss"),
    "layers": ("profile layers model.onnx", "profile layers open.onnx --shape images=1x3x320x320"),
    "benchmark": (
        "profile benchmark model.onnx",
        "profile benchmark model.onnx --per-layer",
        "profile benchmark float.tflite int8.tflite -d adb:1A2B3C -t 2",
    ),
    "build": (
        "profile build plan.json -r litert -o table.parquet",
        "profile build model.onnx -r onnxruntime -d adb:1A2B3C -d ssh:jetson",
        "profile build plan.json -d model:eyeriss",
    ),
    "show": ("profile show table.parquet", "profile show table.parquet --format csv"),
    "predict": (
        "profile predict table.parquet model.onnx",
        "profile predict table.parquet model.onnx --max-latency-ms 12.5",
        "profile predict eyeriss.parquet model.onnx --breakdown",
    ),
    "estimate": ("profile estimate resnet50.onnx mobilenet.onnx", "profile estimate model.onnx -d model:eyeriss --json"),
    "check": ("profile check table.parquet",),
    "compare": ("profile compare before.parquet after.parquet",),
    "import": ("profile import lut.yaml --device-name pixel1 -o pixel1.parquet",),
    "export": ("profile export table.parquet --format csv -o table.csv",),
    "plot": ("profile plot table.parquet -o table.html", "profile plot table.parquet -o table.png"),
    "doctor": ("profile doctor", "profile doctor ssh:jetson --json"),
    "clean": ("profile clean adb:1A2B3C",),
    "schedule run": ("profile schedule run",),
    "schedule once": ("profile schedule once", "profile schedule once --now --json"),
    "schedule status": ("profile schedule status", "profile schedule status --check"),
    "schedule install": ("profile schedule install --cron",),
    "serve": ("profile serve tables runs", "profile serve --host 0.0.0.0 --token-file token"),
    "runner build": ("profile runner build --target android-arm64 --ndk ~/android-ndk -o measure",),
}
"""By the words that follow `profile`."""
