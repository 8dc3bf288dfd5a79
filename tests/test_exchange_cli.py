"""Published tables through the commands: imported, shown, checked, asked for whole networks, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_profile_cli import run, run_json
from test_table import table as measured_table

from netadapt.cli.app import app as netadapt_app
from profiler.formats.model_file import FORMATS
from profiler.layers.composite import as_blocks, inverted_residual, pooled_classifier
from profiler.layers.graph import Graph, Node
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected

LUT = """\
Conv-input:32x32x3-output:16x16x8: {count: 100, mean: 4.0, var: 0.25}
expanded_conv-input:16x16x8-output:16x16x8-expand:1-kernel:3-stride:1-idskip:1: {count: 100, mean: 2.0, var: 0.16}
expanded_conv-input:16x16x8-output:8x8x16-expand:6-kernel:5-stride:2-idskip:0: {count: 100, mean: 3.0, var: 0.1}
expanded_conv-input:8x8x16-output:8x8x16-expand:3-kernel:3-stride:1-idskip:1: {count: 100, mean: 1.5, var: 0.1}
Conv_1-input:8x8x16-output:8x8x64: {count: 100, mean: 6.0, var: 0.0}
Logits-input:8x8x64-output:10: {count: 100, mean: 0.5, var: 0.01}
"""


def network() -> Graph:
    """Made of the table's layers and blocks, padded symmetrically."""
    nodes: list[Node] = []

    def add(name: str, layer: LayerSpec, *inputs: str) -> str:
        nodes.append(Node(name, layer, inputs))
        return name

    def block(
        name: str, before: str, given: tuple[int, ...], out: int, ratio: int, kernel: int, stride: int, shortcut: bool
    ) -> str:
        last, hidden = before, given[-1] * ratio
        if ratio > 1:
            last = add(f"{name}.widen", conv2d(given, hidden, 1, activation="relu6"), last)
        deep = depthwise_conv2d((*given[:-1], hidden), kernel, stride=stride, activation="relu6")
        last = add(f"{name}.deep", deep, last)
        last = add(f"{name}.prune", conv2d(deep.output, out, 1), last)
        made = (*deep.output[:-1], out)
        return add(f"{name}.add", LayerSpec("add", (made, made), made), last, before) if shortcut else last

    stem = add("stem", conv2d((1, 32, 32, 3), 8, 3, stride=2, activation="relu6"), "image")
    first = block("b1", stem, (1, 16, 16, 8), 8, 1, 3, 1, True)
    second = block("b2", first, (1, 16, 16, 8), 16, 6, 5, 2, False)
    third = block("b3", second, (1, 8, 8, 16), 16, 3, 3, 1, True)
    mixed = add("mix", conv2d((1, 8, 8, 16), 64, 1, activation="relu6"), third)
    pooled = add("pool", LayerSpec("global_avg_pool", ((1, 8, 8, 64),), (1, 64)), mixed)
    add("head", fully_connected((1, 64), 10), pooled)
    return Graph("blocks", (("image", (1, 32, 32, 3)),), tuple(nodes), ("head",))


@pytest.fixture
def lut(tmp_path: Path) -> Path:
    path = tmp_path / "lut.yaml"
    path.write_text(LUT)
    return path


@pytest.fixture
def table(lut: Path, tmp_path: Path) -> Path:
    assert run("import", lut, "--device-name", "pixel1", "--out", tmp_path / "t.parquet").exit_code == 0
    return tmp_path / "t.parquet"


BLOCKS = {
    inverted_residual((1, 16, 16, 8), 8, 8, 3, shortcut=True),
    inverted_residual((1, 16, 16, 8), 16, 96, 5, stride=2),
    inverted_residual((1, 16, 16, 8), 16, 48, 5, stride=2),
    inverted_residual((1, 8, 8, 16), 16, 48, 3, shortcut=True),
    pooled_classifier((1, 8, 8, 64), 10),
}


def test_blocks_are_found_in_a_network() -> None:
    found = as_blocks(network(), BLOCKS)
    assert [(node.name, node.layer.op) for node in found] == [
        ("stem", "conv2d"), ("b1.add", "inverted_residual"), ("b2.prune", "inverted_residual"),
        ("b3.add", "inverted_residual"), ("mix", "conv2d"), ("head", "pooled_classifier"),
    ]  # fmt: skip


def test_blocks_that_are_not_in_the_table_stay_layers() -> None:
    graph = network()
    assert as_blocks(graph, frozenset()) == graph.nodes


def test_a_layer_that_something_else_reads_too_is_no_part_of_a_block() -> None:
    graph = network()
    read_too = Graph(graph.name, graph.inputs, graph.nodes, (*graph.outputs, "b2.deep"))
    assert "b2.deep" in {node.name for node in as_blocks(read_too, BLOCKS)}


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_a_model_file_is_priced_by_imported_blocks(table: Path, tmp_path: Path, form: str) -> None:
    model = tmp_path / f"network.{form}"
    model.write_bytes(FORMATS[form].write(network()))
    said = run_json("predict", table, model)
    assert said["missing"] == [] and not said["verified"]
    assert said["latency_ms"] == pytest.approx(4 + 2 + 3 + 1.5 + 6 + 0.5)
    assert said["latency_ms_low"] < said["latency_ms"] < said["latency_ms_high"]
    assert "imported from lut.yaml" in run("predict", table, model).output


def test_a_prediction_without_an_interval_says_so_and_its_json_has_no_nan(tmp_path: Path) -> None:
    kernels = {"conv-bn": {"A": {"config": {"HW": 8, "CIN": 3, "COUT": 8, "KERNEL_SIZE": 1, "STRIDES": 1}, "latency": 2.5}}}
    (tmp_path / "k.json").write_text(json.dumps(kernels))
    assert run("import", tmp_path / "k.json", "--device-name", "phone", "--out", tmp_path / "t.parquet").exit_code == 0
    (tmp_path / "n.tflite").write_bytes(FORMATS["tflite"].write(Graph.of_layer(conv2d((1, 8, 8, 3), 8, 1))))
    assert "2.500 ms, interval not known" in run("predict", tmp_path / "t.parquet", tmp_path / "n.tflite").output
    for command in (["predict", tmp_path / "t.parquet", tmp_path / "n.tflite"], ["show", tmp_path / "t.parquet"]):
        result = run(*command, "--json")
        assert json.loads(result.stdout, parse_constant=pytest.fail)


def test_what_an_imported_table_lacks_cannot_be_added(table: Path, tmp_path: Path) -> None:
    (tmp_path / "n.tflite").write_bytes(FORMATS["tflite"].write(Graph.of_layer(conv2d((1, 8, 8, 3), 8, 1))))
    assert "an imported table cannot be extended" in run("predict", table, tmp_path / "n.tflite").output


def test_an_imported_table_of_a_known_runtime_reads_its_files_only(lut: Path, tmp_path: Path) -> None:
    told = ("--device-name", "pixel1", "--runtime", "tflite-runtime", "--threads", "1", "--licence", "MIT")
    data = run_json("import", lut, *told, "--out", tmp_path / "t.parquet")
    assert (data["runtime"], data["fingerprint"]["imported"]["licence"]) == ("tflite-runtime", "MIT")
    (tmp_path / "n.onnx").write_bytes(FORMATS["onnx"].write(network()))
    refused = run("predict", tmp_path / "t.parquet", tmp_path / "n.onnx")
    assert refused.exit_code == 1 and "does not run .onnx files" in refused.stderr


@pytest.mark.parametrize("command", ["show", "check"])
def test_every_view_says_imported_and_unverified(table: Path, command: str) -> None:
    said = run(command, table).output
    assert "imported from lut.yaml, not measured by us: unverified" in said
    assert "licence not known" in said


def test_the_image_of_an_imported_table_says_so(lut: Path, tmp_path: Path) -> None:
    kernels = {
        str(cout): {"config": {"HW": 8, "CIN": 8, "COUT": cout, "KERNEL_SIZE": 1, "STRIDES": 1}, "latency": cout / 8}
        for cout in (8, 16, 24, 32)
    }
    (tmp_path / "k.json").write_text(json.dumps({"conv-bn": kernels}))
    assert run("import", tmp_path / "k.json", "--device-name", "phone", "--out", tmp_path / "t.parquet").exit_code == 0
    drawn = run("plot", tmp_path / "t.parquet", "--out", tmp_path / "t.html")
    assert drawn.exit_code == 0, drawn.output
    assert "imported from k.json" in (tmp_path / "t.html").read_text()


def test_netadapt_refuses_an_imported_table(table: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    small = ["--width-multiplier", "0.25", "--resolution", "32", "--data", "digits", "--budget", "latency=90%"]
    refused = CliRunner().invoke(
        netadapt_app, ["run", "mobilenet_v1", *small, "--table", str(table), "--out", str(tmp_path / "run")]
    )
    assert refused.exit_code == 1
    assert "imported from lut.yaml" in refused.stderr and "--allow-unverified" in refused.stderr


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.yaml", "a: [1]", "neither lists nor aliases"),
        ("x.json", "{", "is not JSON"),
        ("x.log", "{", "line 1 is not JSON"),
        ("x.txt", "", "add --format"),
        ("\u200bx.yaml", "a: b", "expected"),
    ],
)
def test_a_bad_file_gets_one_sentence_and_writes_nothing(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    result = run("import", tmp_path / name, "--device-name", "d", "--out", tmp_path / "t.parquet")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and said in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_table_that_exists_is_not_overwritten(lut: Path, table: Path) -> None:
    before = table.read_bytes()
    result = run("import", lut, "--device-name", "other", "--out", table)
    assert result.exit_code == 1 and "exists already" in result.stderr
    assert table.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "nn-meter", "ofa"])
def test_export_tells_what_it_wrote_and_what_it_left_out(tmp_path: Path, form: str) -> None:
    measured_table().save(tmp_path / "m.parquet")
    data: dict[str, Any] = run_json("export", tmp_path / "m.parquet", "--format", form, "--out", tmp_path / "out.txt")
    assert data["written"] + sum(data["left_out"].values()) == data["layers"]
    assert (tmp_path / "out.txt").stat().st_size > 100
    assert (
        f"{data['written']} of {data['layers']} layers as {form}"
        in run("export", tmp_path / "m.parquet", "--format", form, "--out", tmp_path / "out.txt").output
    )


def test_a_form_that_does_not_exist_is_refused_with_those_that_do(table: Path, tmp_path: Path) -> None:
    result = run("export", table, "--format", "tvm", "--out", tmp_path / "x")
    assert result.exit_code == 1 and "csv, nn-meter, ofa" in result.stderr
    result = run("import", table, "--format", "xml", "--device-name", "d", "--out", tmp_path / "u.parquet")
    assert result.exit_code == 1 and "csv, nn-meter, ofa, tvm" in result.stderr
