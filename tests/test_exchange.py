from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_table import table as measured_table

from profiler.errors import ExchangeError, LayerError, PlanError
from profiler.exchange import csv_form, flat_yaml, nn_meter, ofa, tvm
from profiler.exchange import reader as reading
from profiler.exchange.exporting import export_table
from profiler.exchange.formats import readable, reader_of
from profiler.exchange.importing import ImportOptions, import_table, save_imported
from profiler.exchange.reader import ImportedRows, Source
from profiler.interval import Interval
from profiler.layers.composite import inverted_residual, pooled_classifier
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.estimate import Estimate
from profiler.protocol.journal import journal_path
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.check import check_table
from profiler.tables.predictor import Predictor
from profiler.tables.table import Table, TableInfo, load_table
from profiler.tables.trust import trust_sentence

PROXYLESS = """\
Conv-input:32x32x3-output:16x16x8: {count: 100, mean: 4.0, var: 0.25}
Conv_1-input:8x8x16-output:8x8x64: {count: 100, mean: 6.0, var: 0.0}
Logits-input:8x8x64-output:10: {mean: 0.5}
expanded_conv-input:16x16x8-output:16x16x8-expand:1-kernel:3-stride:1-idskip:1: {count: 4, mean: 2.0, var: 0.16}
expanded_conv-input:16x16x8-output:8x8x16-expand:6-kernel:5-stride:2-idskip:0: {count: 1, mean: 3.0, var: 0.0}
"""
MOBILENET_V3 = """\
AvgPool2D-input:7x7x960-output:1x1x960: {mean: 0.4}
Conv_2-input:1x1x960-output:1x1x1280: {mean: 0.5}
Logits-input:1x1x1280-output:1000: {mean: 0.6}
expanded_conv-input:14x14x40-output:14x14x40-expand:120-kernel:3-stride:1-idskip:1-se:0-hs:0: {mean: 0.7}
expanded_conv-input:14x14x40-output:14x14x40-expand:120-kernel:3-stride:1-idskip:1-se:1-hs:0: {mean: 0.9}
"""
KERNELS = {
    "conv-bn-relu": {"AA": {"config": {"HW": 13, "CIN": 6, "COUT": 16, "KERNEL_SIZE": 3, "STRIDES": 2}, "latency": "3.5 +- 0.5"}},
    "dwconv-block": {"AAAAAB": {"config": {"HW": 14, "CIN": 8, "KERNEL_SIZE": 5, "STRIDES": 2}, "latency": 1.25}},
    "maxpool": {"AC": {"config": {"HW": 14, "CIN": 8, "COUT": 8, "KERNEL_SIZE": 3, "POOL_STRIDES": 2}, "latency": "0.25 +- 0.0"}},
    "fc": {"AAAAAD": {"config": {"CIN": 64, "COUT": 10}, "latency": "0.125"}},
    "concat": {"AAAAAE": {"config": {"HW": 7, "CIN1": 3, "CIN2": 5, "CIN3": 0, "CIN4": 0}, "latency": "0.5 +- 0.1"}},
    "addrelu": {"AAAAAF": {"config": {"HW": 7, "CIN": 3}, "latency": "0.5 +- 0.1"}},
    "se": {"AAAAAG": {"config": {"HW": 7, "CIN": 16}, "latency": "0.9 +- 0.1"}},
}  # fmt: skip


def record(
    costs: Sequence[Any], name: str = "topi_nn_conv2d", error: int = 0, target: str = "cuda", out: int = 16
) -> dict[str, Any]:
    data, weights = ["TENSOR", [1, 8, 14, 12], "float32"], ["TENSOR", [out, 8, 3, 3], "float32"]
    return {
        "v": 0.1,
        "i": [target, name, [data, weights, [2, 2], [1, 1], "NCHW", "float32"], {}, [], {}],
        "r": [costs, error, 1.5, 1.5e9],
    }


def lines(*records: Any) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def read(name: str, data: bytes | str, *activations: str) -> ImportedRows:
    return reader_of(name)([Source("file", data.encode() if isinstance(data, str) else data)], activations)


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def imported(tmp_path: Path, name: str = "lut.yaml", text: str = PROXYLESS, **told: Any) -> Table:
    return import_table([written(tmp_path, name, text)], ImportOptions("pixel1", **told))


# ------------------------------------------------------------------------------------------- once-for-all and ProxylessNAS


def test_blocks_classifiers_and_lone_layers_of_a_proxylessnas_table_become_rows() -> None:
    found = read("ofa", PROXYLESS)
    assert conv2d((1, 8, 8, 16), 64, 1, activation="relu6") in found.rows
    assert pooled_classifier((1, 8, 8, 64), 10) in found.rows
    assert inverted_residual((1, 16, 16, 8), 8, 8, 3, shortcut=True) in found.rows
    assert inverted_residual((1, 16, 16, 8), 16, 48, 5, stride=2) in found.rows
    assert found.entries == 5 and not found.skipped


def test_the_first_convolution_is_known_with_either_padding() -> None:
    padded = {layer.padding for layer in read("ofa", PROXYLESS).rows if layer.kernel == (3, 3) and layer.op == "conv2d"}
    assert padded == {(0, 0, 1, 1), (1, 1, 1, 1)}


def test_count_and_variance_of_a_mean_become_its_interval() -> None:
    found = read("ofa", PROXYLESS).rows[inverted_residual((1, 16, 16, 8), 8, 8, 3, shortcut=True)]
    assert (found.latency_ms.value, found.samples, found.rounds) == (2.0, 4, 0)
    assert found.latency_ms.half_width == pytest.approx(1.96 * 0.2)


def test_without_a_spread_no_interval_is_invented() -> None:
    found = read("ofa", PROXYLESS).rows
    assert not found[pooled_classifier((1, 8, 8, 64), 10)].latency_ms.known
    assert not found[inverted_residual((1, 16, 16, 8), 16, 48, 5, stride=2)].latency_ms.known, "one run has no spread"


def test_mobilenet_v3_tables_count_hidden_channels_and_use_hard_swish() -> None:
    found = read("ofa", MOBILENET_V3)
    assert inverted_residual((1, 14, 14, 40), 40, 120, 3, shortcut=True, activation="relu") in found.rows
    assert conv2d((1, 1, 1, 960), 1280, 1, activation="hard_swish") in found.rows
    assert LayerSpec("global_avg_pool", ((1, 7, 7, 960),), (1, 1, 1, 960)) in found.rows
    assert fully_connected((1, 1280), 1000) in found.rows


def test_blocks_we_have_no_layer_for_are_counted_and_not_guessed_at() -> None:
    assert read("ofa", MOBILENET_V3).skipped == {ofa.SQUEEZED: 1}


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: *x",
        "a: [1, 2]",
        "a: {b: {c: 1}}",
        "just text",
        "Conv-input:8x8x3-output:4x4x8: {count: 3}",
        "Conv-input:8x8x3-output:5x4x8: {mean: 1}",
        "Conv-input:8x8x3-output:4x4x8: {mean: -1}",
        "Conv-input:8x8x3-output:4x4x8: {mean: .nan}",
        "Conv-input:8x8x3-output:4x4x8: {mean: 1, count: 2, var: -1}",
        "Conv-input:8x8x0-output:4x4x8: {mean: 1}",
        "Conv-input:8x8x3-output:4x4x9999999: {mean: 1}",
        "Conv_1-input:99999x99999x9999-output:99999x99999x9999: {mean: 1}",
        "Conv_1-input:8x3-output:8x8: {mean: 1}",
        "expanded_conv-input:8x8x3-output:8x8x3: {mean: 1}",
        "expanded_conv-input:8x8x3-output:8x8x4-expand:3-kernel:3-stride:1-idskip:1: {mean: 1}",
        "Conv_1-input:8x8x3-output:8x8x3: {mean: 1}\nConv_1-input:8x8x3-output:8x8x3: {mean: 1}",
        "Pool-input:8x8x3-output:8x8x3: {mean: 1}",
        "",
        "a: !!python/object/apply:os.system {b: c}",
        "{" * 5000,
        "--- {}\n--- {}",
        "a: {" + "b: {" * 5000,
    ],
)
def test_a_yaml_file_that_is_no_such_table_gets_a_sentence(text: str) -> None:
    with pytest.raises(ExchangeError):
        read("ofa", text)


def test_a_yaml_file_larger_than_any_table_is_not_parsed() -> None:
    with pytest.raises(ExchangeError, match="larger than 4 MB"):
        read("ofa", b"#" * (flat_yaml.MOST_BYTES + 1))


# -------------------------------------------------------------------------------------------------------------- nn-Meter


def test_kernels_of_nn_meter_become_layers_padded_as_same() -> None:
    found = read("nn-meter", json.dumps(KERNELS))
    conv = LayerSpec("conv2d", ((1, 13, 13, 6),), (1, 7, 7, 16), (3, 3), (2, 2), padding=(1, 1, 1, 1), activation="relu")
    deep = LayerSpec("depthwise_conv2d", ((1, 14, 14, 8),), (1, 7, 7, 8), (5, 5), (2, 2), padding=(1, 1, 2, 2), groups=8)
    assert found.rows[conv].latency_ms.value == 3.5 and found.rows[conv].latency_ms.half_width == pytest.approx(0.98)
    assert found.rows[deep].latency_ms.value == 1.25 and not found.rows[deep].latency_ms.known
    assert LayerSpec("concat", ((1, 7, 7, 3), (1, 7, 7, 5)), (1, 7, 7, 8)) in found.rows
    assert LayerSpec("add", ((1, 7, 7, 3),) * 2, (1, 7, 7, 3), activation="relu") in found.rows
    assert found.skipped == {nn_meter.NO_LAYER.format("se"): 1}


def test_configurations_and_latencies_in_two_files_belong_together_by_id() -> None:
    entry = KERNELS["fc"]["AAAAAD"]
    parts = [{"fc": {"AAAAAD": {name: entry[name]}}} for name in ("config", "latency")]
    sources = [Source(str(place), json.dumps(part).encode()) for place, part in enumerate(parts)]
    assert list(nn_meter.read(sources, ()).rows) == [fully_connected((1, 64), 10)]
    with pytest.raises(ExchangeError, match="give nn-Meter's other file too"):
        nn_meter.read(sources[1:], ())


def test_paths_in_a_foreign_file_are_never_looked_at() -> None:
    kernel = {**KERNELS["fc"]["AAAAAD"], "model": "../../../../etc/passwd"}
    assert "passwd" not in repr(read("nn-meter", json.dumps({"fc": {"../../x": kernel}})))


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {"fc": 3},
        {"fc": {"A": 3}},
        {"fc": {"A": {"config": 3, "latency": 1}}},
        {"fc": {"A": {"config": {"CIN": 3}, "latency": 1}}},
        {"fc": {"A": {"config": {"CIN": True, "COUT": 3}, "latency": 1}}},
        {"fc": {"A": {"config": {"CIN": 10**30, "COUT": 3}, "latency": 1}}},
        {"fc": {"A": {"config": {"CIN": 3, "COUT": 3}, "latency": "fast"}}},
        {"fc": {"A": {"config": {"CIN": 3, "COUT": 3}, "latency": [1]}}},
        {"fc": {"A": {"config": {"CIN": 3, "COUT": 3}, "latency": 10**400}}},
        {"concat": {"A": {"config": {"HW": 3}, "latency": 1}}},
        {},
    ],
)
def test_json_that_is_no_kernel_data_gets_a_sentence(plain: Any) -> None:
    with pytest.raises(ExchangeError):
        read("nn-meter", json.dumps(plain))


# ------------------------------------------------------------------------------------------------------------------- TVM


def test_a_tuning_log_holds_lone_operators_in_seconds() -> None:
    found = read("tvm", lines(record([0.002])))
    (layer,) = found.rows
    assert layer == LayerSpec(
        "conv2d", ((1, 14, 12, 8),), (1, 7, 6, 16), (3, 3), (2, 2), padding=(1, 1, 1, 1), bias=False
    )  # fmt: skip
    assert found.rows[layer].latency_ms.value == pytest.approx(2.0) and not found.rows[layer].latency_ms.known


def test_later_logs_and_depthwise_and_dense_tasks_are_read_too() -> None:
    deep = [["TENSOR", [1, 8, 7, 7], "float32"], ["TENSOR", [8, 1, 3, 3], "float32"], [1, 1], [1, 1, 1, 1], [1, 1], "float32"]
    dense = [["TENSOR", [1, 64], "float32"], ["TENSOR", [10, 64], "float32"], None, "float32"]
    found = read(
        "tvm",
        lines(
            {"input": ["cuda", "depthwise_conv2d_nchw.cuda", deep, {}], "result": [[1e-3] * 3, 0, 1, 2], "version": 0.2},
            {"input": ["cuda", "dense_small_batch.gpu", dense, {}], "result": [[1e-3], 0, 1, 2], "version": 0.2},
        ),
    )
    bare = LayerSpec("depthwise_conv2d", ((1, 7, 7, 8),), (1, 7, 7, 8), (3, 3), padding=(1, 1, 1, 1), groups=8, bias=False)
    assert list(found.rows) == [bare, fully_connected((1, 64), 10, bias=False)]
    assert found.rows[bare].latency_ms.half_width == pytest.approx(0.0, abs=1e-12), "the spread of three repeats"


def test_the_fastest_trial_stands_for_its_layer_and_failed_ones_are_counted() -> None:
    found = read("tvm", lines(record([0.003]), record([0.001]), record([0.002]), record([1e9], error=4)))
    assert [round(row.latency_ms.value, 9) for row in found.rows.values()] == [1.0]
    assert found.skipped == {tvm.SLOWER: 2, tvm.FAILED: 1}


def test_operators_are_dressed_with_an_activation_only_when_asked() -> None:
    found = read("tvm", lines(record([0.002])), "relu", "relu6")
    assert {(layer.activation, layer.bias) for layer in found.rows} == {("relu", True), ("relu6", True)}
    assert any("as you said" in said for said in found.assumptions)


def test_logs_of_two_targets_are_not_mixed() -> None:
    with pytest.raises(ExchangeError, match="import each by itself"):
        read("tvm", lines(record([0.002]), record([0.002], target="llvm -device=arm_cpu")))


def test_tasks_in_another_layout_are_left_out() -> None:
    other = record([0.002], name="conv2d_NCHWc.x86")
    assert read("tvm", lines(record([0.002]), other)).skipped == {"tasks of an unknown kind or layout (conv2d_NCHWc.x86)": 1}


def _with(place: int, value: Any) -> dict[str, Any]:
    changed = record([0.002])
    changed["i"][2][place] = value
    return changed


@pytest.mark.parametrize(
    "line",
    [
        {},
        3,
        {"i": [], "r": []},
        {"i": ["cuda", "topi_nn_conv2d", []], "r": [0.1, 0]},
        record([]),
        record([0]),
        record(["1"] * 2 + [None]),
        record([10**400]),
        _with(0, ["TENSOR", [1, 8, 14], "float32"]),
        _with(0, ["TENSOR", [1, 9, 14, 12], "float32"]),
        _with(1, ["TENSOR", [16, 8, 99, 99], "float32"]),
        _with(2, [0, 0]),
        _with(3, [-1, 0]),
        _with(3, [1]),
        _with(4, [[[[]]]]),
    ],
)
def test_lines_that_are_no_tuning_records_get_a_sentence(line: Any) -> None:
    with pytest.raises(ExchangeError):
        read("tvm", lines(line))


# ------------------------------------------------------------------------------------------------------ whatever comes in


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["TENSOR", "float32", "1 +- 2"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.integers(-2, 40) | st.integers() | JSON
CONFIGS = st.dictionaries(st.sampled_from(["HW", "CIN", "COUT", "CIN1", "CIN2", "KERNEL_SIZE", "STRIDES", "POOL_STRIDES"]), NUMBERS)
KINDS = st.sampled_from([*KERNELS, "conv-bn-hswish", "global-avgpool", "relu", "add", "avgpool", "split"])
KERNEL = st.fixed_dictionaries({}, optional={"config": CONFIGS | JSON, "latency": st.sampled_from(["1 +- 0.1", 2.5]) | JSON})
TENSORS = st.tuples(st.just("TENSOR"), st.lists(NUMBERS, min_size=2, max_size=4), st.sampled_from(["float32", "int8", "odd"]))
PAIRS = st.lists(NUMBERS, min_size=2, max_size=4)
TASKS = st.sampled_from(["topi_nn_conv2d", "topi_nn_depthwise_conv2d_nchw", "dense.x", "conv2d_nchw.cuda", "other"])
ARGUMENTS = st.tuples(TENSORS | JSON, TENSORS | JSON, PAIRS | JSON, PAIRS | JSON, PAIRS | JSON) | st.lists(JSON, max_size=5)
RESULTS = st.tuples(st.lists(st.floats() | NUMBERS, max_size=4) | JSON, st.sampled_from([0, 1]) | JSON, JSON, JSON)
RECORDS = st.builds(
    lambda *parts: {"i": parts[:3], "r": parts[3]}, st.just("cuda") | JSON, TASKS | JSON, ARGUMENTS | JSON, RESULTS | JSON
)
SIZES = st.integers(0, 300).map(str) | st.sampled_from(["7", "14", "x", "", "99999999999", "²"])
SHAPES = st.lists(SIZES, max_size=4).map("x".join)
OPTIONS = st.lists(st.tuples(st.sampled_from(["expand", "kernel", "stride", "idskip", "se", "hs", "odd"]), st.integers(0, 9)))
KEYS = st.builds(
    lambda kind, given, made, options: f"{kind}-input:{given}-output:{made}" + "".join(f"-{name}:{size}" for name, size in options),
    st.sampled_from(["Conv", "Conv_1", "Conv_2", "Logits", "AvgPool2D", "expanded_conv", "odd"]),
    SHAPES,
    SHAPES,
    OPTIONS,
)  # fmt: skip
TABLES = st.dictionaries(
    KEYS | st.text(max_size=9),
    st.dictionaries(st.sampled_from(["mean", "count", "var", "x"]), st.floats() | JSON) | JSON,
    max_size=4,
)


def survives(name: str, data: bytes) -> None:
    """Rows that are layers, or our error: nothing else ever."""
    try:
        found = read(name, data)
    except ExchangeError as error:
        assert "\n" not in str(error)
        return
    info = TableInfo(Target("d", "unknown"), {"imported": {"from": "x"}}, TimingSettings(), "2026-01-01T00:00:00+00:00")
    for writer in (csv_form.write, nn_meter.write, ofa.write):
        writer(Table(found.rows, info))
    assert all(row.latency_ms.value > 0 for row in found.rows.values())


@given(st.sampled_from(readable()), st.binary(max_size=200))
def test_any_bytes_are_a_table_or_an_error_of_ours(name: str, data: bytes) -> None:
    survives(name, data)


@given(st.sampled_from(readable()), st.text(alphabet="[]{}:,-&*!|>'\"\n #%@ab1.xe", max_size=80))
def test_any_text_that_looks_like_a_table_is_one_or_an_error_of_ours(name: str, text: str) -> None:
    survives(name, text.encode())


@given(st.sampled_from(readable()), JSON)
def test_any_json_is_a_table_or_an_error_of_ours(name: str, plain: Any) -> None:
    survives(name, json.dumps(plain).encode())


@settings(max_examples=200)
@given(st.dictionaries(KINDS, st.dictionaries(st.text(max_size=3), KERNEL | JSON, max_size=2), max_size=3))
def test_any_kernels_are_a_table_or_an_error_of_ours(plain: Any) -> None:
    survives("nn-meter", json.dumps(plain).encode())


@settings(max_examples=200)
@given(st.lists(RECORDS, max_size=3))
def test_any_records_are_a_table_or_an_error_of_ours(records: Any) -> None:
    survives("tvm", lines(*records))


@settings(max_examples=200)
@given(TABLES)
def test_any_keys_and_figures_are_a_table_or_an_error_of_ours(plain: Any) -> None:
    survives("ofa", json.dumps(plain).encode())


@pytest.mark.parametrize("name", readable())
@pytest.mark.parametrize("opening", ["[", '{"a":', "- "])
def test_deep_nesting_is_an_error_of_ours(name: str, opening: str) -> None:
    survives(name, (opening * 200_000).encode())


# --------------------------------------------------------------------------------------------------------- whole tables


def test_an_imported_table_says_where_it_comes_from_and_that_it_is_unverified(tmp_path: Path) -> None:
    save_imported(imported(tmp_path, source="https://example.org/lut", licence="MIT"), tmp_path / "t.parquet")
    table = load_table(tmp_path / "t.parquet")
    about = table.info.imported
    assert about is not None and not table.verified
    assert trust_sentence(table).startswith("imported from lut.yaml, not measured by us: unverified")
    assert (about["source"], about["licence"], about["files"][0]["name"]) == ("https://example.org/lut", "MIT", "lut.yaml")
    assert len(about["files"][0]["sha256"]) == 64
    assert (about["runtime"], about["threads"]) == (None, None)


def test_an_imported_table_comes_back_from_its_file_with_its_unknown_intervals(tmp_path: Path) -> None:
    before = imported(tmp_path)
    before.save(tmp_path / "t.parquet")
    after = load_table(tmp_path / "t.parquet")
    assert repr(after.rows) == repr(before.rows)
    assert after.info == before.info


def test_no_round_of_an_imported_table_counts_as_disturbed(tmp_path: Path) -> None:
    assert imported(tmp_path).disturbed_percent == 0


def test_what_is_to_distrust_in_an_imported_table_is_said(tmp_path: Path) -> None:
    said = " ".join(finding.what for finding in check_table(imported(tmp_path, text=PROXYLESS + MOBILENET_V3)))
    for doubt in ("nobody here measured it", "licence is not known", "runtime and threads", "without an interval", ofa.SQUEEZED):
        assert doubt in said


def test_nothing_is_guessed_between_layers_of_an_imported_table(tmp_path: Path) -> None:
    kernels = {
        str(cout): {"config": {"HW": 7, "CIN": 16, "COUT": cout, "KERNEL_SIZE": 1, "STRIDES": 1}, "latency": 1.0}
        for cout in (16, 32)
    }
    predictor = Predictor(imported(tmp_path, "k.json", json.dumps({"conv-bn-relu": kernels})))
    assert predictor.lookup(conv2d((1, 7, 7, 16), 32, 1, activation="relu")) is not None
    assert predictor.lookup(conv2d((1, 7, 7, 16), 24, 1, activation="relu")) is None
    graph = Graph.of_layer(conv2d((1, 7, 7, 16), 16, 1, activation="relu"))
    assert predictor.predict(graph).latency_ms.value == 1.0 and not predictor.predict(graph).latency_ms.known


def test_a_table_that_was_measured_is_never_replaced_by_an_imported_one(tmp_path: Path) -> None:
    journal_path(tmp_path / "mine.parquet").write_text("")
    with pytest.raises(ExchangeError, match="exists already"):
        save_imported(imported(tmp_path), tmp_path / "mine.parquet")


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endless.yaml")
    with pytest.raises(ExchangeError, match="there is no file"):
        import_table([tmp_path / "endless.yaml"], ImportOptions("d"))


def test_a_file_too_large_for_a_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_BYTES", 100)
    with pytest.raises(ExchangeError, match="larger than"):
        imported(tmp_path)


def test_files_whose_format_cannot_be_told_ask_for_it(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="--format csv or nn-meter or ofa or tvm"):
        import_table([written(tmp_path, "lut.txt", PROXYLESS)], ImportOptions("d"))
    assert import_table([tmp_path / "lut.txt"], ImportOptions("d", format="ofa")).rows


@pytest.mark.parametrize("told", [{"device": " "}, {"device": "a\nb"}, {"device": "d", "activations": ("wish",)}])
def test_what_the_user_tells_is_checked(told: dict[str, Any]) -> None:
    with pytest.raises(ExchangeError):
        ImportOptions(**told)


# --------------------------------------------------------------------------------------------------------------- writing


def table_of(*layers: LayerSpec) -> Table:
    rows = {layer: Estimate(Interval(1.5 + place, 1.25 + place, 1.75 + place), 6, 100, 6) for place, layer in enumerate(layers)}
    return Table(rows, measured_table().info)


def assert_same(before: Table, after: ImportedRows) -> None:
    assert set(after.rows) == set(before.rows)
    for layer, row in after.rows.items():
        assert row.latency_ms.value == before.rows[layer].latency_ms.value
        assert row.latency_ms.half_width == pytest.approx(before.rows[layer].latency_ms.half_width)


def test_what_nn_meter_can_hold_comes_back_as_it_was(tmp_path: Path) -> None:
    same = {"padding": (0, 0, 1, 1), "kernel": (3, 3), "stride": (2, 2)}
    before = table_of(
        LayerSpec("conv2d", ((1, 8, 8, 3),), (1, 4, 4, 8), activation="relu6", **same),  # type: ignore[arg-type]
        LayerSpec("max_pool2d", ((1, 8, 8, 3),), (1, 4, 4, 3), **same),  # type: ignore[arg-type]
        conv2d((1, 8, 8, 4), 8, 1),
        depthwise_conv2d((1, 8, 8, 4), 3, activation="hard_swish"),
        fully_connected((1, 4), 10),
        LayerSpec("add", ((1, 8, 8, 4),) * 2, (1, 8, 8, 4)),
        LayerSpec("concat", ((1, 8, 8, 4), (1, 8, 8, 2)), (1, 8, 8, 6)),
        LayerSpec("global_avg_pool", ((1, 8, 8, 4),), (1, 4)),
        LayerSpec("relu", ((1, 8, 8, 4),), (1, 8, 8, 4)),
    )
    export_table(before, "nn-meter", tmp_path / "k.json")
    assert_same(before, read("nn-meter", (tmp_path / "k.json").read_bytes()))


def test_what_nn_meter_cannot_hold_is_said() -> None:
    writing = nn_meter.write(
        table_of(
            conv2d((1, 8, 6, 4), 8, 1),
            conv2d((1, 8, 8, 4), 8, 3, padding=0),
            conv2d((1, 8, 8, 4), 8, 1, bias=False),
            conv2d((1, 8, 8, 4), 8, 1, groups=2),
            conv2d((1, 8, 8, 4), 8, 1, activation="sigmoid"),
            conv2d((1, 8, 8, 4), 8, 1).with_dtype("int8"),
            LayerSpec("softmax", ((1, 4),), (1, 4)),
        )
    )
    assert writing.written == 0 and writing.left_out.total() == 7


def test_what_once_for_all_can_hold_comes_back_as_it_was(tmp_path: Path) -> None:
    before = table_of(
        conv2d((1, 1, 1, 4), 8, 1, activation="hard_swish"),
        conv2d((1, 8, 8, 4), 8, 1, activation="hard_swish"),
        LayerSpec("global_avg_pool", ((1, 8, 8, 4),), (1, 1, 1, 4)),
        fully_connected((1, 8), 10),
        pooled_classifier((1, 7, 7, 8), 10),
        inverted_residual((1, 8, 8, 4), 6, 12, 5, stride=2, activation="relu"),
        inverted_residual((1, 8, 8, 4), 4, 12, 3, shortcut=True, activation="hard_swish"),
    )
    export_table(before, "ofa", tmp_path / "t.yaml")
    assert_same(before, read("ofa", (tmp_path / "t.yaml").read_bytes()))


def test_what_once_for_all_cannot_hold_is_said() -> None:
    writing = ofa.write(table_of(conv2d((1, 8, 8, 4), 8, 3), depthwise_conv2d((1, 8, 8, 4), 3), conv2d((1, 8, 8, 4), 8, 1)))
    assert writing.written == 0 and writing.left_out.total() == 3


def test_a_csv_file_has_every_layer_with_units_and_leaves_empty_what_is_not_known(tmp_path: Path) -> None:
    table = imported(tmp_path)
    rows = list(csv.DictReader(io.StringIO(csv_form.write(table).text)))
    assert [row["key"] for row in rows] == [layer.key for layer in table.rows]
    assert {"latency_ms", "weight_bytes", "kernel_px", "energy_mj", "licence"} <= set(rows[0])
    head = next(row for row in rows if row["op"] == "pooled_classifier")
    assert (head["latency_ms"], head["latency_ms_low"], head["rounds"], head["threads"]) == ("0.5", "", "", "")


def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="cannot be written"):
        export_table(measured_table(), "csv", tmp_path / "nowhere" / "t.csv")
    with pytest.raises(ExchangeError, match="can hold no layer"):
        export_table(table_of(conv2d((1, 8, 8, 4), 8, 3)), "ofa", tmp_path / "t.yaml")
    with pytest.raises(ExchangeError, match="would be taken for a table"):
        export_table(measured_table(), "csv", tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------- blocks


def test_a_blocks_work_and_weights_are_those_of_its_layers() -> None:
    block = inverted_residual((1, 8, 8, 4), 6, 12, 5, stride=2)
    parts = [conv2d((1, 8, 8, 4), 12, 1), depthwise_conv2d((1, 8, 8, 12), 5, stride=2), conv2d((1, 4, 4, 12), 6, 1)]
    assert block.macs == sum(part.macs or 0 for part in parts)
    assert block.weight_bytes == sum(part.weight_bytes for part in parts)
    head = pooled_classifier((1, 7, 7, 8), 10)
    assert (head.macs, head.parameters) == (80, 90)
    assert LayerSpec.from_dict(json.loads(json.dumps(block.to_dict()))) == block


def test_a_block_that_contradicts_itself_cannot_be_made() -> None:
    with pytest.raises(LayerError):
        inverted_residual((1, 8, 8, 4), 6, 12, 5, shortcut=True)
    with pytest.raises(LayerError):
        inverted_residual((1, 8, 8, 4), 6, 0, 5)
    with pytest.raises(LayerError):
        LayerSpec("relu", ((1, 4),), (1, 4), hidden=3)


def test_no_network_is_made_of_blocks() -> None:
    with pytest.raises(PlanError, match="block of a published table"):
        Graph.of_layer(pooled_classifier((1, 7, 7, 8), 10))


# --------------------------------------------------------------------------------------------------- our CSV, and others' JSON


def as_csv(table: Table) -> str:
    return csv_form.write(table).text


def test_our_own_csv_gives_back_the_layers_and_their_latencies() -> None:
    table = measured_table()
    found = read("csv", as_csv(table))
    assert list(found.rows) == [layer for layer in table.rows if layer.opaque is None]
    for layer, row in found.rows.items():
        assert (row.latency_ms, row.samples, row.rounds) == (table.rows[layer].latency_ms, table.rows[layer].samples, 0)


def test_layers_of_every_kind_come_back_from_csv() -> None:
    layers = [
        conv2d((1, 8, 8, 4), 8, 3, stride=2, activation="relu6"), depthwise_conv2d((1, 8, 8, 4), 3),
        LayerSpec("add", ((1, 4, 4, 8), (1, 4, 4, 8)), (1, 4, 4, 8)), fully_connected((1, 4), 3),
        inverted_residual((1, 8, 8, 4), 6, 12, 5, stride=2), conv2d((1, 8, 8, 16), 16, 1).with_dtype("int8"),
        LayerSpec("conv2d", ((1, 8, 8, 16),), (1, 8, 8, 16), layout="nchwc8", bias=False),
    ]  # fmt: skip
    assert list(read("csv", as_csv(table_of(*layers))).rows) == layers


RESAVED = {
    "a byte-order mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "line ends of windows": lambda text: text.replace("\n", "\r\n").encode(),
    "an index of pandas": lambda text: "\n".join(f"{number},{line}" for number, line in enumerate(text.splitlines())).encode(),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace(".", ",").encode(),
    "a line for spreadsheets": lambda text: b"sep=,\r\n" + text.encode(),
    "booleans of a spreadsheet": lambda text: text.replace("True", "TRUE").replace("False", "FALSE").encode(),
}


@pytest.mark.parametrize("form", RESAVED)
def test_csv_that_another_program_saved_again_is_the_same_table(form: str) -> None:
    text = as_csv(table_of(conv2d((1, 8, 8, 4), 8, 3), depthwise_conv2d((1, 8, 8, 4), 3)))
    assert read("csv", RESAVED[form](text)).rows == read("csv", text).rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("kernel_px", "kernel"), "has no column kernel_px"),
        (lambda text: text.replace("3x3", "3"), "line 2: kernel cannot be '3'"),
        (lambda text: text.replace("1x8x8x4", "1x8x8xfour"), "line 2: an input cannot be '1x8x8xfour'"),
        (lambda text: text.replace(",1.5,", ",-1.5,"), "latency_ms must be a latency above 0"),
        (lambda text: text.replace(",1.25,", ",1.6,"), "is no interval around 1.5 ms"),
        (lambda text: text.replace("relu6", "wish"), "line 2 is no layer"),
        (lambda text: text.splitlines()[0], "nothing to import"),
        (lambda text: text[:-9], "line 2 ends in the middle; the file was cut short"),
        (lambda text: "op,inputs\n", "such a table is written by `profile export --format csv`, and not by `profile show`"),
    ],
)
def test_csv_that_is_no_table_is_told_with_its_line(change: Callable[[str], str], said: str) -> None:
    text = as_csv(table_of(conv2d((1, 8, 8, 4), 8, 3, activation="relu6")))
    with pytest.raises(ExchangeError, match=said):
        read("csv", change(text))


THREE_ROWS = (conv2d((1, 8, 8, 4), 8, 3), depthwise_conv2d((1, 8, 8, 4), 3), conv2d((1, 8, 8, 4), 8, 1))


def test_csv_that_is_cut_short_anywhere_is_no_shorter_table() -> None:
    text = as_csv(table_of(*THREE_ROWS))
    for end in range(len(text)):
        with suppress(ExchangeError):
            assert list(read("csv", text[:end]).rows) == list(THREE_ROWS), f"cut at {end} of {len(text)}"


def test_rows_that_were_left_out_are_counted_and_the_way_to_leave_them_out_is_told() -> None:
    header, first, *_ = as_csv(table_of(*THREE_ROWS)).splitlines()
    with pytest.raises(ExchangeError, match=r"has 1 of '?3'? rows; .* leave its column table_rows out too"):
        read("csv", f"{header}\n{first}\n")
    without = "\n".join(line.rpartition(",")[0] for line in (header, first))
    assert list(read("csv", without).rows) == [THREE_ROWS[0]]


def test_a_json_table_of_once_for_alls_keys_is_told_by_what_it_holds(tmp_path: Path) -> None:
    plain = {"Conv_1-input:8x8x16-output:8x8x64": {"mean": 6.0, "count": 4, "std": 0.5}}
    path = tmp_path / "lut.json"
    path.write_text(json.dumps(plain))
    table = import_table([path], ImportOptions("d"))
    (row,) = table.rows.values()
    assert table.info.imported is not None and table.info.imported["format"] == "ofa"
    assert row.latency_ms.high == pytest.approx(6.0 + 1.96 * 0.5 / 2)


@pytest.mark.parametrize("fields", [{"std": 0.4}, {"var": 0.16}, {"variance": 0.16}, {"stdev": 0.4}])
def test_kernels_may_have_their_deviation_beside_the_latency(fields: dict[str, float]) -> None:
    kernel = {"config": {"CIN": 64, "COUT": 10}, "latency": 2.0} | fields
    (row,) = read("nn-meter", json.dumps({"fc": {"A": kernel}})).rows.values()
    assert row.latency_ms.high == pytest.approx(2.0 + 1.96 * 0.4)


@pytest.mark.parametrize("fields", [{"std": -1}, {"var": -1}, {"std": "x"}])
def test_a_deviation_that_is_none_is_told(fields: dict[str, Any]) -> None:
    kernel = {"config": {"CIN": 64, "COUT": 10}, "latency": 2.0} | fields
    with pytest.raises(ExchangeError, match=r"must (not be negative|be a number)"):
        read("nn-meter", json.dumps({"fc": {"A": kernel}}))
