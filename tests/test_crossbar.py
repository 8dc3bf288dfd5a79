"""How networks lie on arrays of cells: two of equal accuracy and work, one deep and narrow, one shallow and wide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from profiler.errors import HardwareError
from profiler.modelled.crossbar import Layout, cost, layout
from profiler.modelled.hardware import shipped_hardware
from profiler.modelled.work import Assumptions, Geometry, Work

HARDWARE = shipped_hardware()["pim_reram"].hardware
assert HARDWARE.crossbar is not None
PLAIN = replace(HARDWARE.crossbar, cell_bits=8, dac_bits=8)
"""One cell for a weight, and inputs at once."""


def convolution(inputs: int, outputs: int, size: int, kernel: int = 1) -> Work:
    geometry = Geometry(1, size, size, size, size, kernel, kernel)
    return Work(geometry, np.ones(1), np.array([float(inputs)]), np.array([float(outputs)]), Assumptions(bits=8))


def resnet(blocks: tuple[int, ...], factor: int) -> list[Work]:
    """The layers of a residual network of bottlenecks for images of 224x224; `factor` widens their inner layers."""
    layers, channels, size = [convolution(3, 64, 112, 7)], 64, 56
    for stage, count in enumerate(blocks):
        planes = 64 * 2**stage
        for block in range(count):
            after = size // 2 if block == 0 and stage > 0 else size
            layers += [convolution(channels, planes * factor, size), convolution(planes * factor, planes * factor, after, 3)]
            layers.append(convolution(planes * factor, planes * 4, after))
            if block == 0:
                layers.append(convolution(channels, planes * 4, after))
            channels, size = planes * 4, after
    return [*layers, convolution(2048, 1000, 1)]


DEEP, WIDE = resnet((3, 8, 36, 3), 1), resnet((3, 4, 6, 3), 2)


def on_arrays(network: list[Work], size: int) -> list[Layout]:
    return [layout(work, replace(PLAIN, rows=size, cols=size)) for work in network]


def utilisation(found: list[Layout], size: int) -> float:
    cells = sum(float(item.rows[0] * item.columns[0]) for item in found)
    return cells / (sum(float(item.arrays[0]) for item in found) * size**2)


@pytest.mark.parametrize(
    ("network", "layers", "gmacs", "mweights"), [(DEEP, 156, 11.51, 60.0), (WIDE, 54, 11.40, 68.8)], ids=["deep", "wide"]
)
def test_the_two_networks_have_as_much_work(network: list[Work], layers: int, gmacs: float, mweights: float) -> None:
    assert len(network) == layers
    assert sum(float(work.macs[0]) for work in network) / 1e9 == pytest.approx(gmacs, abs=0.01)
    assert sum(float(work.values[1][0]) for work in network) / 1e6 == pytest.approx(mweights, abs=0.1)


@pytest.mark.parametrize(
    ("network", "size", "arrays", "used", "mean", "adc_m", "dac_m"),
    [
        (DEEP, 128, 3684, 0.995, 0.961, 92.6, 94),
        (DEEP, 256, 968, 0.946, 0.864, 50.3, 57),
        (DEEP, 512, 445, 0.515, 0.453, 34.7, 51),
        (DEEP, 1024, 255, 0.225, 0.214, 27.3, 49),
        (DEEP, 2048, 198, 0.072, 0.068, 24.5, 49),
        (DEEP, 4096, 159, 0.023, 0.022, 22.6, 49),
        (WIDE, 128, 4206, 0.999, 0.968, 90.3, 90),
        (WIDE, 256, 1064, 0.987, 0.877, 47.6, 52),
        (WIDE, 512, 293, 0.896, 0.692, 28.8, 39),
        (WIDE, 1024, 120, 0.547, 0.410, 20.9, 36),
        (WIDE, 2048, 82, 0.200, 0.157, 17.0, 36),
        (WIDE, 4096, 66, 0.062, 0.047, 15.3, 36),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)  # fmt: skip
def test_a_network_takes_so_many_arrays_and_conversions(
    network: list[Work], size: int, arrays: int, used: float, mean: float, adc_m: float, dac_m: float
) -> None:
    found = on_arrays(network, size)
    assert sum(float(item.arrays[0]) for item in found) == arrays
    assert utilisation(found, size) == pytest.approx(used, abs=0.001)
    assert np.mean([item.utilisation[0] for item in found]) == pytest.approx(mean, abs=0.001)
    assert sum(float(item.adc_conversions[0]) for item in found) / 1e6 == pytest.approx(adc_m, abs=0.1)
    assert sum(float(item.dac_conversions[0]) for item in found) / 1e6 == pytest.approx(dac_m, abs=0.6)


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096])
def test_the_wide_network_uses_large_arrays_better(size: int) -> None:
    deep, wide = on_arrays(DEEP, size), on_arrays(WIDE, size)
    assert utilisation(wide, size) > utilisation(deep, size)
    assert sum(item.adc_conversions[0] for item in wide) < sum(item.adc_conversions[0] for item in deep)
    assert sum(item.steps for item in wide) < sum(item.steps for item in deep)


def test_a_layer_of_more_arrays_than_there_are_runs_in_turns_and_writes_its_weights() -> None:
    work = convolution(512, 512, 7, 3)
    few = replace(HARDWARE, crossbar=replace(PLAIN, arrays=36))
    enough = replace(HARDWARE, crossbar=replace(PLAIN, arrays=144))
    assert cost(work, few).cycles[0] == 4 * cost(work, enough).cycles[0]
    assert cost(work, few).data_pj[2, 1, 0] > cost(work, enough).data_pj[2, 1, 0] == 0


def test_an_engine_without_its_section_is_told() -> None:
    with pytest.raises(HardwareError, match=r"no section \[crossbar\]"):
        cost(convolution(3, 4, 8), replace(HARDWARE, crossbar=None))
