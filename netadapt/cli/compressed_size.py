"""The command `netadapt compressed-size`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from netadapt.cli import options
from netadapt.cli.errors import needs_torch
from netadapt.cli.source import source_with_warnings
from profiler.console import Json, count, print_json, print_table

if TYPE_CHECKING:
    from netadapt.weight_pruning.compressed_size import CompressedNetwork


def compressed_size(
    network: options.NetworkOrRun,
    data: options.DataOfRun = None,
    step: options.StepOfRun = None,
    width_multiplier: options.Multiplier = 1.0,
    resolution: options.Resolution = 224,
    input_shapes: options.Input = None,
    output: options.Output = None,
    small_input: options.SmallInput = False,
    weights: options.TrainedWeights = None,
    task: options.Task = None,
    seed: options.Seed = 1,
    as_json: Json = False,
) -> None:
    """Say how small a network is when it is stored as in Deep Compression (Han et al., 2016), and how accurate it is then.

    Weights that are not zero become places in a list of shared values, and these are Huffman-coded. Scores are those of what
    is decoded.
    """
    with needs_torch():
        from netadapt.training.trainer import score
        from netadapt.weight_pruning.compressed_size import compressed
        from netadapt.weight_pruning.source import source_request

        request = source_request(
            network, step, data, width_multiplier, resolution, small_input, input_shapes, output, weights, task, seed=seed
        )
        source = source_with_warnings(request, "; give --weights")
        test, accuracy = source.dataset.test, source.dataset.task.accuracy
        before, found = score(source.model, test).accuracy, compressed(source.model)
        found.load_into(source.model)
        after = score(source.model, test).accuracy
        if as_json:
            print_json(compressed_data(found) | {"test_accuracy": before, "test_accuracy_compressed": after})
        else:
            print_compressed(found)
            print(f"{accuracy.label} on test images: {accuracy.text(before)}, compressed {accuracy.text(after)}")


def compressed_data(found: CompressedNetwork) -> dict[str, Any]:
    """Sizes in bytes of the network, and in bits of each layer."""
    return {
        "size_bytes": found.size_bytes,
        "bytes_without_huffman": found.bytes_without_huffman,
        "original_bytes": found.original_bytes,
        "other_bits": found.other_bits,
        "layers": {
            name: {
                "shape": list(layer.shape), "nonzero": layer.nonzero, "shared_values": layer.shared_values,
                "distance_bits": None if layer.distances is None else layer.coding.distance_bits,
                "bits_without_huffman": layer.bits_without_huffman, "bits": layer.bits,
            }
            for name, layer in found.layers.items()
        },
    }  # fmt: skip


def print_compressed(found: CompressedNetwork) -> None:
    """Each layer, then the network."""
    rows = []
    for name, layer in found.layers.items():
        size = math.prod(layer.shape)
        rows.append(
            (
                name, count(size), f"{100 * layer.nonzero / size:.1f} %", layer.shared_values,
                f"{layer.bits_without_huffman / 8e3:.4g}", f"{layer.bits / 8e3:.4g}", f"{layer.bits / size:.2f}",
            )
        )  # fmt: skip
    columns = ("layer", "weights", "not zero", "shared values", "kB", "kB Huffman-coded", "bits a weight")
    print_table(columns, rows, right=columns[1:])
    print(f"biases and normalisations: {found.other_bits / 8e3:.4g} kB")
    ratio = found.original_bytes / found.size_bytes
    print(f"{found.size_bytes / 1e3:.4g} kB in place of {found.original_bytes / 1e3:.4g} kB, {ratio:.1f} times smaller")
    print(f"without Huffman codes {found.bytes_without_huffman / 1e3:.4g} kB")
    print("the shared values are not trained further, as the paper does")
