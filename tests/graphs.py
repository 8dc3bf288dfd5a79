"""Networks for tests and benchmarks, made of layer specs alone: no torch, no files."""

from __future__ import annotations

from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected

# (output channels, stride) of the 13 depthwise-pointwise pairs of MobileNetV1
MOBILENET_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def mobilenet_v1(multiplier: float = 1.0, resolution: int = 224, classes: int = 1000, pairs: int = 13) -> Graph:
    """MobileNetV1 with a block for every width; fewer `pairs` make a shorter network."""

    def width(full: int) -> int:
        return max(8, int(full * multiplier + 4) // 8 * 8)

    nodes: list[Node] = []

    def add(name: str, layer: LayerSpec, block: str | None = None) -> None:
        nodes.append(Node(name, layer, (nodes[-1].name if nodes else "image",), block))

    add("conv0", conv2d((1, resolution, resolution, 3), width(32), 3, stride=2, activation="relu6"), "conv0")
    for number, (channels, stride) in enumerate(MOBILENET_PAIRS[:pairs], 1):
        add(f"dw{number}", depthwise_conv2d(nodes[-1].layer.output, 3, stride=stride, activation="relu6"))
        add(f"pw{number}", conv2d(nodes[-1].layer.output, width(channels), 1, activation="relu6"), f"pw{number}")
    last = nodes[-1].layer.output
    add("pool", LayerSpec("global_avg_pool", (last,), (1, last[-1])))
    add("classifier", fully_connected((1, last[-1]), classes))
    return Graph(
        f"mobilenet_v1 {multiplier}/{resolution}", (("image", (1, resolution, resolution, 3)),), tuple(nodes), ("classifier",)
    )


def in_a_row(*layers: LayerSpec) -> Graph:
    """A network of layers that each read the one before."""
    names = ["input", *(f"layer_{place}" for place in range(len(layers)))]
    nodes = tuple(Node(name, layer, (source,)) for source, name, layer in zip(names, names[1:], layers, strict=False))
    return Graph("network", (("input", layers[0].inputs[0]),), nodes, (names[-1],))
