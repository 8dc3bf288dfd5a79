"""The engine that asks ZigZag, a program of others in a Python of its own.

Most facts here are of a stand-in that answers the same lines; those of ZigZag itself are skipped where it is not installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from profiler.cli.app import app
from profiler.errors import EngineError, HardwareError
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d, fully_connected
from profiler.modelled import zigzag
from profiler.modelled.hardware import shipped_hardware
from profiler.modelled.model import model_of, open_model
from profiler.modelled.work import mac_pj
from profiler.modelled.zigzag import RELEASE, question
from profiler.tables.plan import Plan, write_plan

ADDRESS = "model:eyeriss@batch=1,engine=zigzag"
LAYER = conv2d((1, 8, 8, 16), 32, 3)
STAND_IN = f"""#!{sys.executable}
# Stands in for the Python of ZigZag: it answers the lines of zigzag_program.py, with figures that are none of ZigZag's.
import json, os, signal, sys
print(json.dumps({{"zigzag": os.environ.get("STAND_IN_RELEASE", "{RELEASE}")}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    with open(__file__ + ".asked", "a") as log:
        log.write(line)
    sizes = dict(zip(asked["layer"]["loop_dims"], asked["layer"]["loop_sizes"]))
    if sizes["K"] == 13:
        sys.exit("no luck")
    if sizes["K"] == 19 and "INTERRUPTING" in os.environ:
        os.kill(os.getppid(), signal.SIGINT)
        continue
    if sizes["K"] == 17:
        print(json.dumps({{"error": "No valid loop ordering was found"}}), flush=True)
        continue
    moved = {{"I": {{"dram": 800.0}}, "W": {{"unit_weight": 160.0, "dram": 80.0}}, "O": {{"buffer": 16.0, "dram": 8.0}}}}
    print(json.dumps({{
        "energy_pj": 1.0, "moved_bits": moved, "cycles": 300.0, "computing_cycles": 200.0, "active_units": 84.0, "mapping": "D1 K",
    }}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "stand_in"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ZIGZAG_PYTHON", str(path))
    yield path
    zigzag._PROGRAM.close()


def asked(stand_in: Path) -> list[dict[str, Any]]:
    log = Path(f"{stand_in}.asked")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def asked_for(layer: LayerSpec, address: str = ADDRESS) -> dict[str, Any]:
    model = open_model(address)
    work = model.work(layer)
    assert work is not None
    return question(work, model.hardware, 0)


def sizes(found: dict[str, Any]) -> dict[str, int]:
    return dict(zip(found["layer"]["loop_dims"], found["layer"]["loop_sizes"], strict=True))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_bits_moved_are_paid_at_the_prices_of_the_description(stand_in: Path) -> None:
    energy = shipped_hardware()["eyeriss"].hardware.energy
    cost = open_model(ADDRESS).cost(LAYER)
    assert cost.data_mj["dram"]["input"] == pytest.approx(800 / 16 * energy.dram * energy.unit_pj / 1e9)
    assert cost.data_mj["unit"]["weight"] == pytest.approx(160 / 16 * energy.unit * energy.unit_pj / 1e9)
    assert cost.dram_bytes == (800 + 80 + 8) / 8


def test_waiting_for_memory_is_part_of_the_latency_and_is_told_apart_from_computing(stand_in: Path) -> None:
    cost = open_model(ADDRESS).cost(LAYER)
    assert cost.latency_ms == pytest.approx(300 / 200e3)
    assert cost.macs_per_cycle["whole passes"] == pytest.approx(LAYER.macs / 200)
    assert cost.macs_per_cycle["DRAM bandwidth"] == pytest.approx(LAYER.macs / 300)


def test_a_layer_is_asked_for_once_even_by_another_process(stand_in: Path) -> None:
    first = open_model(ADDRESS).cost(LAYER)
    zigzag._PROGRAM.close()
    assert open_model(ADDRESS).cost(LAYER) == first
    assert len(asked(stand_in)) == 1


def test_other_hardware_is_asked_for_again(stand_in: Path) -> None:
    open_model(ADDRESS).cost(LAYER)
    open_model(f"{ADDRESS},bits=8").cost(LAYER)
    assert len(asked(stand_in)) == 2


def test_a_damaged_answer_in_the_cache_is_told(stand_in: Path, tmp_path: Path) -> None:
    open_model(ADDRESS).cost(LAYER)
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text("{")
    with pytest.raises(EngineError, match="is damaged"):
        open_model(ADDRESS).cost(LAYER)


def test_a_layer_without_a_mapping_cannot_run_and_others_can(stand_in: Path) -> None:
    with pytest.raises(HardwareError, match="ZigZag finds no mapping: No valid loop ordering was found"):
        open_model(ADDRESS).cost(conv2d((1, 8, 8, 16), 17, 3))
    assert open_model(ADDRESS).cost(LAYER).energy_mj > 0


def test_a_program_that_ends_is_told_with_its_last_words_and_started_again(stand_in: Path) -> None:
    with pytest.raises(EngineError, match="ended without an answer: no luck"):
        open_model(ADDRESS).cost(conv2d((1, 8, 8, 16), 13, 3))
    assert open_model(ADDRESS).cost(LAYER).energy_mj > 0


def test_another_release_is_refused(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_RELEASE", "3.8.0")
    with pytest.raises(EngineError, match=rf"has ZigZag 3\.8\.0, and the engine zigzag needs {RELEASE}"):
        open_model(ADDRESS).cost(LAYER)


def test_without_zigzag_the_commands_to_install_it_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ZIGZAG_PYTHON", raising=False)
    write_plan(Plan(Graph("net", (("x", LAYER.inputs[0]),), (Node("conv", LAYER, ("x",)),), ("conv",))), tmp_path / "net.json")
    result = run("build", tmp_path / "net.json", "--device", ADDRESS, "--out", tmp_path / "t.parquet")
    assert result.exit_code == 1
    assert f"{tmp_path}/netadapt-profiler/zigzag/bin/pip install zigzag-dse=={RELEASE} six" in result.stderr
    assert not (tmp_path / "t.parquet").exists()


def test_a_build_that_is_interrupted_goes_on_where_it_was(stand_in: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    last = conv2d((1, 8, 8, 32), 19, 3)
    nodes = (Node("first", LAYER, ("x",)), Node("last", last, ("first",)))
    write_plan(Plan(Graph("net", (("x", LAYER.inputs[0]),), nodes, ("last",))), tmp_path / "net.json")
    command = ("build", tmp_path / "net.json", "--device", ADDRESS, "--out", tmp_path / "t.parquet")
    with monkeypatch.context() as patch:
        patch.setenv("INTERRUPTING", "1")
        stopped = run(*command)
    assert stopped.exit_code == 130
    assert "interrupted; nothing was written" in stopped.stderr
    assert run(*command).exit_code == 0
    assert [sizes(each)["K"] for each in asked(stand_in)] == [32, 19, 19]


def test_a_python_without_zigzag_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ZIGZAG_PYTHON", sys.executable)
    with pytest.raises(EngineError, match="No package metadata was found for zigzag-dse; install ZigZag"):
        open_model(ADDRESS).cost(LAYER)


def test_a_table_keeps_the_engine_and_nobody_vouches_for_it(stand_in: Path) -> None:
    model = open_model(ADDRESS)
    assert model_of(model.to_dict()).hardware.engine == "zigzag"
    assert not model.vouched
    assert open_model("model:eyeriss").vouched


def test_an_engine_that_there_is_not_is_told_with_the_nearest() -> None:
    with pytest.raises(HardwareError, match="did you mean 'zigzag'"):
        open_model("model:eyeriss@engine=zigzac")


def test_zeros_are_refused() -> None:
    with pytest.raises(HardwareError, match="leave the densities out"):
        open_model(f"{ADDRESS},input_density=0.5").cost(LAYER)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("model:pim_reram@engine=zigzag", "for the engine crossbar only"),
        ("model:eyeriss@engine=crossbar", r"no section \[crossbar\]"),
    ],
)
def test_an_engine_that_the_hardware_is_not_made_for_is_refused(address: str, said: str) -> None:
    with pytest.raises(HardwareError, match=said):
        open_model(address)


def test_a_description_without_memory_for_weights_is_told_what_it_lacks(tmp_path: Path) -> None:
    text = shipped_hardware()["tpu_like"].text.replace("unit_weight_words = 2", "unit_weight_words = 0")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(HardwareError, match="no memory on the chip for weights"):
        open_model(f"model:{tmp_path / 'mine.toml'}@engine=zigzag").cost(LAYER)


def test_a_loop_that_there_is_not_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(shipped_hardware()["tpu_like"].text.replace('cols = ["K"]', 'cols = ["N"]'))
    with pytest.raises(HardwareError, match=r"line \d+.*zigzag"):
        open_model(f"model:{tmp_path / 'mine.toml'}")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (conv2d((1, 8, 8, 16), 32, 3, groups=4), {"G": 4, "C": 4, "K": 8, "FX": 3, "OX": 8}),
        (
            LayerSpec("depthwise_conv2d", ((1, 8, 8, 16),), (1, 4, 4, 16), (3, 3), (2, 2), groups=16, padding=(1, 1, 1, 1)),
            {"G": 16, "C": 1, "K": 1, "OY": 4},
        ),
        (fully_connected((1, 128), 10), {"B": 1, "C": 128, "K": 10, "OX": 1, "OY": 1, "FX": 1}),
    ],
    ids=["groups", "depthwise", "matrix product"],
)
def test_the_loops_are_those_of_the_layer(layer: LayerSpec, expected: dict[str, int]) -> None:
    found = sizes(asked_for(layer))
    assert found | expected == found


def test_padding_is_what_the_kernel_reads_beyond_the_input() -> None:
    found = asked_for(conv2d((1, 224, 224, 3), 64, 7, stride=2))["layer"]
    assert (found["pr_loop_sizes"], found["padding"]) == ([224, 224], [[2, 3], [2, 3]])
    assert found["dimension_relations"] == ["ix=2*ox+1*fx", "iy=2*oy+1*fy"]


def test_activations_that_the_hardware_keeps_do_not_pass_through_dram() -> None:
    small, large = (
        asked_for(conv2d((1, size, size, 64), 64, 3), "model:tpu_like@batch=1,engine=zigzag")["accelerator"]["memories"]["dram"]
        for size in (8, 800)
    )
    assert (small["operands"], large["operands"]) == (["I2"], ["I1", "I2", "O"])


ZIGZAG = os.environ.get("ZIGZAG_PYTHON", "")
needs_zigzag = pytest.mark.skipif(
    not ZIGZAG,
    reason=f"needs ZigZag in an environment of its own (zigzag-dse=={RELEASE} and six), whose Python ZIGZAG_PYTHON names",
)
RESNET18 = [
    (1, conv2d((1, 224, 224, 3), 64, 7, stride=2)), (4, conv2d((1, 56, 56, 64), 64, 3)),
    (1, conv2d((1, 56, 56, 64), 128, 3, stride=2)), (1, conv2d((1, 56, 56, 64), 128, 1, stride=2)),
    (3, conv2d((1, 28, 28, 128), 128, 3)),
    (1, conv2d((1, 28, 28, 128), 256, 3, stride=2)), (1, conv2d((1, 28, 28, 128), 256, 1, stride=2)),
    (3, conv2d((1, 14, 14, 256), 256, 3)),
    (1, conv2d((1, 14, 14, 256), 512, 3, stride=2)), (1, conv2d((1, 14, 14, 256), 512, 1, stride=2)),
    (3, conv2d((1, 7, 7, 512), 512, 3)), (1, fully_connected((1, 512), 1000)),
]  # fmt: skip
"""The layers with weights of ResNet-18, with how often each is there."""


@needs_zigzag
@pytest.mark.slow
def test_resnet_18_costs_what_zigzags_own_test_of_a_systolic_array_expects() -> None:
    """The figures are those of its tests/main/test_origin/test_tpu_like.py, 3.9.1: 1.87e9 pJ and 3.87e6 cycles in all."""
    read = "import json, sys, yaml, zigzag; print(json.dumps(yaml.safe_load(open(f'{zigzag.__path__[0]}/inputs/{sys.argv[1]}'))))"
    accelerator, mappings = (
        json.loads(subprocess.run([ZIGZAG, "-P", "-c", read, f"{kind}/tpu_like.yaml"], check=True, capture_output=True).stdout)
        for kind in ("hardware", "mapping")
    )
    mapping = next(each for each in mappings if each["name"] == "default")
    energy_pj = cycles = 0.0
    for count, layer in RESNET18:
        found = asked_for(layer, "model:eyeriss@batch=1,bits=8")
        found |= {"accelerator": accelerator, "mapping": mapping, "minimise": "latency"}
        found["layer"]["operand_precision"]["O"] = 16
        said = zigzag._PROGRAM.ask(json.dumps(found))
        energy_pj, cycles = energy_pj + count * said["energy_pj"], cycles + count * said["cycles"]
    zigzag._PROGRAM.close()
    assert energy_pj == pytest.approx(1871436380.6559997)
    assert cycles == pytest.approx(3865041.0)


@needs_zigzag
@pytest.mark.slow
@pytest.mark.parametrize("address", ["model:eyeriss@batch=1", "model:tpu_like@batch=1", "model:diannao"])
def test_bits_at_our_prices_are_the_energy_that_zigzag_says(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for what it rounds to whole accesses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing that was answered before
    model = open_model(address + (",engine=zigzag" if "@" in address else "@engine=zigzag"))
    work = model.work(fully_connected((1, 256), 512))
    assert work is not None
    answer, costs = zigzag._answer(question(work, model.hardware, 0)), zigzag.cost(work, model.hardware)
    zigzag._PROGRAM.close()
    ours_pj = float(costs.data_pj.sum() + (work.macs * mac_pj(model.hardware, work.assumptions)).sum())
    assert ours_pj == pytest.approx(answer.energy_pj, rel=0.02)
    assert costs.dram_bytes[1, 0] == pytest.approx(256 * 512 * work.assumptions.bits / 8, rel=1e-3)


@needs_zigzag
@pytest.mark.slow
def test_a_systolic_array_moves_the_data_that_our_own_engine_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the buffer and at DRAM, where the dataflow leaves no choice: what the two engines differ in is inside the array."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    layer = conv2d((1, 56, 56, 3), 64, 7, stride=2)
    ours, theirs = (open_model(f"model:tpu_like@batch=1{more}").cost(layer) for more in ("", ",engine=zigzag"))
    zigzag._PROGRAM.close()
    assert theirs.data_mj["dram"] == pytest.approx(ours.data_mj["dram"])
    assert theirs.data_mj["buffer"] == pytest.approx(ours.data_mj["buffer"])
    assert theirs.active_units == ours.active_units
