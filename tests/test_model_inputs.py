"""Model files as people have them: open shapes, weights in other files, and values of inputs."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from asking import answer
from onnx import NodeProto, TensorProto, helper, numpy_helper
from test_profile_cli import run, run_json, succeed

from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given, given_inputs
from profiler.formats.model_file import FORMATS
from profiler.formats.onnx import complete, reader
from profiler.formats.onnx.complete import complete_onnx
from profiler.formats.onnx.executed import read_executed
from profiler.formats.onnx.reader import read_onnx
from profiler.formats.onnx.tensors import weights_of
from profiler.layers.graph import Graph
from profiler.measure.benchmark import measure_files
from profiler.protocol.settings import Target

Dim = int | str | None
FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def saved(
    folder: Path,
    nodes: list[NodeProto],
    inputs: dict[str, tuple[int, tuple[Dim, ...] | None]],
    weights: dict[str, np.ndarray] | None = None,
    *,
    output: tuple[Dim, ...] | None = None,
    ir_version: int = 8,
    opset: int = 17,
    listed: bool = False,
) -> Path:
    """A file that ends in y. `listed` if weights are listed among the inputs, as old exporters do."""
    tensors = [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()]
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    if listed:
        infos += [helper.make_tensor_value_info(weight.name, weight.data_type, tuple(weight.dims)) for weight in tensors]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", FLOAT, output)], tensors)
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version), path)
    return path


def op(kind: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def detector(folder: Path, shape: tuple[Dim, ...] | None = ("batch", 3, "height", "width")) -> Path:
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    nodes = [op("Conv", "images w", "y", pads=[1, 1, 1, 1])]
    return saved(folder, nodes, {"images": (FLOAT, shape)}, weights, output=("batch", 4, "height", "width"))


def executed(path: Path, given: Given = NOTHING) -> Graph:
    """What the runtime on this machine executes for the completed file."""
    said = answer(complete_onnx(path, given))
    return read_executed(path.stem, base64.b64decode(said.graph or ""), said.operators, 1).graph


def session(data: bytes) -> ort.InferenceSession:
    return ort.InferenceSession(data, providers=["CPUExecutionProvider"])


# ---- open shapes


def test_an_open_batch_is_one(tmp_path: Path) -> None:
    assert read_onnx(detector(tmp_path, ("batch", 3, 8, 8))).inputs == (("images", (1, 8, 8, 3)),)


def test_an_open_batch_without_a_name_is_one(tmp_path: Path) -> None:
    assert read_onnx(detector(tmp_path, (None, 3, 8, 8))).inputs == (("images", (1, 8, 8, 3)),)


def test_a_batch_of_minus_one_is_one(tmp_path: Path) -> None:
    assert read_onnx(detector(tmp_path, (-1, 3, 8, 8))).inputs == (("images", (1, 8, 8, 3)),)


def test_other_open_dimensions_are_asked_for_by_the_option_that_gives_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"batchx3xheightxwidth.* --shape images=1x3xNxN"):
        read_onnx(detector(tmp_path))


def test_a_given_shape_is_the_one_that_is_read(tmp_path: Path) -> None:
    graph = read_onnx(detector(tmp_path), given_inputs(["images=1x3x32x48"], []))
    assert (graph.inputs, graph.layers[0].output) == ((("images", (1, 32, 48, 3)),), (1, 32, 48, 4))


def test_a_given_shape_is_the_one_that_is_sent(tmp_path: Path) -> None:
    data = complete_onnx(detector(tmp_path), given_inputs(["images=2x3x32x48"], []))
    assert session(data).get_inputs()[0].shape == [2, 3, 32, 48]


def test_a_file_that_declares_no_shape_takes_the_given_one(tmp_path: Path) -> None:
    assert read_onnx(detector(tmp_path, None), given_inputs(["images=1x3x8x8"], [])).inputs == (("images", (1, 8, 8, 3)),)


def test_a_file_that_declares_no_shape_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no shape; .* --shape images="):
        read_onnx(detector(tmp_path, None))


def test_a_name_of_a_dimension_is_one_number_in_all_inputs(tmp_path: Path) -> None:
    inputs: dict[str, tuple[int, tuple[Dim, ...] | None]] = {"a": (FLOAT, ("n", "length")), "b": (FLOAT, ("n", "length"))}
    graph = read_onnx(saved(tmp_path, [op("Add", "a b", "y")], inputs), given_inputs(["a=2x16"], []))
    assert graph.inputs == (("a", (2, 16)), ("b", (2, 16)))


def test_a_shape_of_another_rank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has 4 dimensions, not the 2 that are given"):
        read_onnx(detector(tmp_path), given_inputs(["images=3x3"], []))


def test_a_shape_for_no_input_names_the_inputs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--shape names pictures, which is no input; the inputs are images"):
        read_onnx(detector(tmp_path), given_inputs(["pictures=1x3x8x8"], []))


@pytest.mark.parametrize("text", ["images", "images=axb", "=1x3", "images=0x3", "images=-1x3"])
def test_an_option_that_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"is not the name of an input and its shape"):
        given_inputs([text], [])


def test_a_file_with_nothing_open_is_sent_byte_for_byte(tmp_path: Path) -> None:
    path = detector(tmp_path, (1, 3, 8, 8))
    assert complete_onnx(path) == path.read_bytes()


def test_a_damaged_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"is not a model that onnxruntime"):
        complete_onnx(tmp_path / "model.onnx")


# ---- weights beside the file


def beside(folder: Path, location: str = "m.data") -> Path:
    folder.mkdir()
    model = onnx.load(detector(folder, (1, 3, 8, 8)))
    (folder / "model.onnx").unlink()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "m.onnx"


def test_weights_beside_the_file_are_sent_along(tmp_path: Path) -> None:
    data = complete_onnx(beside(tmp_path / "a"))
    assert session(data).run(None, {"images": np.ones((1, 3, 8, 8), np.float32)})[0].max() == 27


def test_weights_beside_a_link_are_sent_along(tmp_path: Path) -> None:
    path, cache = beside(tmp_path / "blobs"), tmp_path / "snapshot"
    cache.mkdir()
    for name in ("m.onnx", "m.data"):
        (cache / name).symlink_to(path.parent / name)
    assert complete_onnx(cache / "m.onnx") == complete_onnx(path)


def test_weights_are_found_where_a_lone_link_leads_to(tmp_path: Path) -> None:
    path = beside(tmp_path / "blobs")
    (tmp_path / "m.onnx").symlink_to(path)
    assert complete_onnx(tmp_path / "m.onnx") == complete_onnx(path)


def test_hard_linked_weights_are_sent_along(tmp_path: Path) -> None:
    path = beside(tmp_path / "a")
    (tmp_path / "kept").hardlink_to(path.parent / "m.data")
    assert len(read_onnx(path).layers) == 1


def test_weights_of_a_node_beside_the_file_are_sent_along(tmp_path: Path) -> None:
    constant = op("Constant", "", "w", value=numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"))
    path = saved(tmp_path, [constant, op("Conv", "x w", "y")], {"x": (FLOAT, (1, 3, 8, 8))})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0, convert_attribute=True)
    assert len(read_onnx(path).layers) == 1


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = beside(tmp_path / "a")
    (path.parent / "m.data").unlink()
    with pytest.raises(ModelError, match=r"its weights are in m.data, which is not beside it"):
        complete_onnx(path)


def test_weights_that_end_too_early_are_named(tmp_path: Path) -> None:
    path = beside(tmp_path / "a")
    (path.parent / "m.data").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"m.data is shorter than the weight w needs"):
        complete_onnx(path)


def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    path = beside(tmp_path / "a")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"'../secret', which is not beside the model"):
        complete_onnx(path)


# ---- weights that are more than a file can hold


def gibibytes(folder: Path, opset: int = 17) -> Path:
    """Three products with 1 GiB of weights each, in a file that takes no room on the disk."""
    shape, size_bytes = (16384, 16384), 4 * 16384**2
    path = saved(folder, [op("MatMul", "x a", "p"), op("MatMul", "p b", "q"), op("MatMul", "q c", "y")], WIDE, opset=opset)
    model = onnx.load(path)
    for place, name in enumerate("abc"):
        weight = model.graph.initializer.add(name=name, data_type=FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", "w.data"), ("offset", place * size_bytes), ("length", size_bytes)):
            weight.external_data.add(key=key, value=str(value))
    onnx.save(model, path)
    with (folder / "w.data").open("wb") as file:
        file.truncate(3 * size_bytes)
    return path


WIDE: dict[str, tuple[int, tuple[Dim, ...] | None]] = {"x": (FLOAT, (1, 16384))}


def test_large_weights_are_made_up_where_they_are_more_than_a_file_can_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "MOST_WEIGHTS_BYTES", 4 << 30)
    model = onnx.load_model_from_string(complete_onnx(gibibytes(tmp_path)))
    assert [node.op_type for node in model.graph.node] == 3 * ["ConstantOfShape"] + 3 * ["MatMul"]
    assert model.ByteSize() < 10_000


def test_it_is_said_that_weights_are_made_up(tmp_path: Path) -> None:
    said = "its weights take 3.0 GiB, more than one ONNX file can hold; those of 1 MiB and more are measured with made-up values"
    assert (FORMATS["onnx"].remark(gibibytes(tmp_path)) or "").endswith(said)


def test_nothing_is_said_of_weights_that_a_file_can_hold(tmp_path: Path) -> None:
    assert FORMATS["onnx"].remark(beside(tmp_path / "a")) is None


def test_weights_that_are_more_than_the_memory_holds_are_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "MOST_WEIGHTS_BYTES", 1 << 30)
    with pytest.raises(ModelError, match=r"its weights take 3.0 GiB, over half of this machine's memory; use a machine"):
        complete_onnx(gibibytes(tmp_path))


def test_many_weights_of_an_old_file_are_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete, "MOST_WEIGHTS_BYTES", 4 << 30)
    with pytest.raises(ModelError, match=r"its weights take 3.0 GiB, more than one ONNX file can hold; measure it in parts"):
        complete_onnx(gibibytes(tmp_path, opset=8))


@pytest.fixture
def too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network whose weights are beside it, and as if they were more than a file can hold."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((64, 3, 3, 3), np.float32),
        "b": np.ones(64, np.float32),
        "f": np.ones((64, 32), np.float32),
    }
    nodes = [op("Conv", "x w b", "c"), op("GlobalAveragePool", "c", "g"), op("Flatten", "g", "v"), op("MatMul", "v f", "m")]
    nodes += [op("Erf", "m", "y")]
    path = saved(tmp_path, nodes, {"x": (FLOAT, (1, 3, 8, 8))}, weights)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data", size_threshold=0)
    for module in (complete, reader):
        monkeypatch.setattr(module, "MOST_FILE_BYTES", 8000)
    monkeypatch.setattr(complete, "LARGE_WEIGHT_BYTES", 1024)
    return path


def test_layers_are_the_same_whether_their_weights_are_made_up(too_many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up = read_onnx(too_many).layers
    for module in (complete, reader):
        monkeypatch.setattr(module, "MOST_FILE_BYTES", 1 << 20)
    assert made_up == read_onnx(too_many).layers


def test_a_network_whose_weights_are_made_up_has_a_table(too_many: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.parquet"
    built = run("build", too_many, "--runtime", "onnxruntime", "--out", table, "--rounds", "3")
    assert (built.exit_code, "made-up values" in built.stderr) == (0, True), built.output
    assert {layer["source"] for layer in run_json("predict", table, too_many)["layers"]} == {"measured"}


# ---- values


def rows(folder: Path, count: int, kind: int = INT64, **more: object) -> Path:
    """A table of so many rows, looked up by whole numbers."""
    nodes = [op("Gather", "rows ids", "e"), op("Relu", "e", "y")]
    return saved(folder, nodes, {"ids": (kind, (1, 64))}, {"rows": np.ones((count, 8), np.float32)}, **more)  # type: ignore[arg-type]


def test_whole_numbers_stay_inside_a_table_of_one_row(tmp_path: Path) -> None:
    assert session(complete_onnx(rows(tmp_path, 1))).run(None, {})[0].shape == (1, 64, 8)


def test_whole_numbers_of_32_bits_stay_inside_a_table_of_one_row(tmp_path: Path) -> None:
    assert session(complete_onnx(rows(tmp_path, 1, INT32))).run(None, {})[0].shape == (1, 64, 8)


def test_a_table_of_two_rows_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = rows(tmp_path, 2)
    assert complete_onnx(path) == path.read_bytes()


def test_a_fed_lookup_is_executed_as_one_with_an_input(tmp_path: Path) -> None:
    assert [(layer.op, layer.inputs) for layer in executed(rows(tmp_path, 1)).layers] == [
        ("Gather", ((1, 64),)),
        ("relu", ((1, 64, 8),)),
    ]


def test_old_files_that_list_their_weights_are_fed_and_folded_as_before(tmp_path: Path) -> None:
    path = rows(tmp_path, 1, listed=True, ir_version=3, opset=9)
    assert session(complete_onnx(path)).run(None, {})[0].shape == (1, 64, 8)


def test_a_given_array_is_what_the_model_reads(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.full((1, 64), 5))
    path = saved(tmp_path, [op("Cast", "ids", "y", to=FLOAT)], {"ids": (INT64, (1, 64))})
    data = complete_onnx(path, given_inputs([], [f"ids={tmp_path / 'ids.npy'}"]))
    assert set(session(data).run(None, {})[0].flat) == {5.0}


def test_a_given_number_stands_for_all_elements(tmp_path: Path) -> None:
    path = saved(tmp_path, [op("Sqrt", "x", "y")], {"x": (FLOAT, (1, 4))})
    assert set(session(complete_onnx(path, given_inputs([], ["x=0.25"]))).run(None, {})[0].flat) == {0.5}


def test_a_given_array_says_the_shape_too(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 7), np.float32))
    path = saved(tmp_path, [op("Relu", "x", "y")], {"x": (FLOAT, ("n", "length"))})
    assert read_onnx(path, given_inputs([], [f"x={tmp_path / 'x.npy'}"])).inputs == (("x", (1, 7)),)


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 2), np.float32))
    path = saved(tmp_path, [op("Relu", "x", "y")], {"x": (FLOAT, (1, 4))})
    with pytest.raises(ModelError, match=r"float32 of shape \(1, 4\), not float32 of shape \(2, 2\)"):
        read_onnx(path, given_inputs([], [f"x={tmp_path / 'x.npy'}"]))


@pytest.mark.parametrize("kind", ["Sqrt", "Log", "Acosh", "Reciprocal"])
def test_an_operator_that_is_not_finite_below_zero_is_measured_alone_with_values_for_which_it_is(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, [op("Abs", "x", "a"), op(kind, "a", "y")], {"x": (FLOAT, (1, 64))})
    graph = executed(path)
    lone = next(layer.opaque for layer in graph.layers if layer.op == kind)
    assert lone is not None
    runner = session(graph.opaques[lone.digest])
    values = {value.name: np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 64) for value in runner.get_inputs()}
    assert np.isfinite(runner.run(None, values)[0]).all()


@pytest.mark.parametrize("kind", ["Div", "Mod"])
def test_whole_numbers_are_not_divided_by_zero(tmp_path: Path, kind: str) -> None:
    inputs: dict[str, tuple[int, tuple[Dim, ...] | None]] = {"a": (INT64, (1, 64)), "b": (INT64, (1, 64))}
    path = saved(tmp_path, [op(kind, "a b", "d"), op("Cast", "d", "y", to=FLOAT)], inputs)
    graph = executed(path)
    for data in (complete_onnx(path), *graph.opaques.values()):
        fed = {weight.name: numpy_helper.to_array(weight) for weight in onnx.load_model_from_string(data).graph.initializer}
        assert all((values > 0).all() for values in fed.values() if values.dtype.kind == "i")
    assert {layer.op for layer in graph.layers} == {kind, "Cast"}


def test_a_tensor_without_dimensions_is_a_layer(tmp_path: Path) -> None:
    path = saved(tmp_path, [op("Relu", "x", "r"), op("ReduceMean", "r", "y", keepdims=0)], {"x": (FLOAT, (1, 64))})
    assert [layer.output for layer in read_onnx(path).layers] == [(1, 64), ()]


# ---- what is no usual tensor


@pytest.mark.parametrize("read", [read_onnx, executed])
def test_a_list_of_tensors_does_not_refuse_the_file(tmp_path: Path, read: Callable[[Path], Graph]) -> None:
    nodes = [op("SplitToSequence", "x", "s", axis=1), op("ConcatFromSequence", "s", "y", axis=1)]
    graph = read(saved(tmp_path, nodes, {"x": (FLOAT, (1, 8))}))
    assert [(layer.op, layer.dtype) for layer in graph.layers] == [
        ("SplitToSequence", "float32"),
        ("ConcatFromSequence", "no tensor"),
    ]


@pytest.mark.parametrize("read", [read_onnx, executed])
def test_an_empty_output_does_not_refuse_the_file(tmp_path: Path, read: Callable[[Path], Graph]) -> None:
    nodes = [op("Sub", "x x", "z"), op("NonZero", "z", "n"), op("Cast", "n", "y", to=FLOAT)]
    assert [layer.output for layer in read(saved(tmp_path, nodes, {"x": (FLOAT, (1, 8))})).layers] == [(1, 8), (2, 0), (2, 0)]


@pytest.mark.parametrize("places", [[0, 5, 9, 20], [[0, 0], [1, 1], [2, 1], [5, 0]]])
@pytest.mark.parametrize("read", [read_onnx, executed])
def test_sparse_weights_are_those_of_a_fully_connected_layer(
    tmp_path: Path, read: Callable[[Path], Graph], places: list[int] | list[list[int]]
) -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(4, np.float32), "w"), numpy_helper.from_array(np.array(places), "wi"), [8, 4]
    )
    path = saved(tmp_path, [op("MatMul", "x w", "y")], {"x": (FLOAT, (1, 8))})
    model = onnx.load(path)
    model.graph.sparse_initializer.append(sparse)
    path.write_bytes(model.SerializeToString())
    (layer,) = read(path).layers
    assert (layer.op, layer.weight_shape, layer.opaque) == ("fully_connected", (4, 8), None)


@pytest.mark.parametrize(
    ("places", "dims", "words"),
    [
        ([0, 40], [8, 4], "outside of its shape"),
        ([0, -1], [8, 4], "outside of its shape"),
        ([0, 1], [1 << 20, 1 << 20], "too large"),
    ],
)
def test_damaged_sparse_weights_are_told_in_one_sentence(tmp_path: Path, places: list[int], dims: list[int], words: str) -> None:
    path = saved(tmp_path, [op("MatMul", "x w", "y")], {"x": (FLOAT, (1, dims[0]))})
    model = onnx.load(path)
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array(places), "wi"), dims)
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=words):
        weights_of(model.graph)


def test_a_tensor_that_takes_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    nodes = [op("ConstantOfShape", "size", "c"), op("Add", "x c", "y")]
    path = saved(tmp_path, nodes, {"x": (FLOAT, (1,))}, {"size": np.array([1 << 20, 1 << 20])})
    with pytest.raises(ModelError, match=r"tensor c .* is too large: it takes over \d+\.\d GiB"):
        read_onnx(path)


def test_many_weights_that_an_operator_makes_are_read(tmp_path: Path) -> None:
    nodes = [op("ConstantOfShape", "size", "w"), op("MatMul", "x w", "y")]
    path = saved(tmp_path, nodes, {"x": (FLOAT, (1, 9216))}, {"size": np.array([9216, 4096])})
    assert read_onnx(path).layers[0].weight_shape == (4096, 9216)


# ---- the commands


def test_layers_are_listed_at_the_given_shape(tmp_path: Path) -> None:
    found = run_json("layers", detector(tmp_path), "--shape", "images=1x3x16x24")
    assert found["layers"][0]["inputs"] == [[1, 16, 24, 3]]


def test_a_benchmark_measures_at_the_given_shape(tmp_path: Path) -> None:
    assert run_json("benchmark", detector(tmp_path), "--rounds", "3", "--shape", "images=1x3x16x24")["latency_ms"] > 0


@pytest.mark.slow
def test_a_table_is_built_and_read_at_the_given_shape(tmp_path: Path) -> None:
    path, table, shape = detector(tmp_path), tmp_path / "t.parquet", ("--shape", "images=1x3x16x24")
    built = run("build", path, "--runtime", "onnxruntime", "--out", table, "--rounds", "3", *shape)
    assert built.exit_code == 0, built.output
    assert run_json("predict", table, path, *shape)["missing"] == []


@pytest.mark.slow
def test_a_command_that_adds_layers_repeats_the_shape(tmp_path: Path) -> None:
    path, table = detector(tmp_path), tmp_path / "t.parquet"
    succeed("build", path, "--runtime", "onnxruntime", "--out", table, "--rounds", "3", "--shape", "images=1x3x16x24")
    said = run("predict", table, path, "--shape", "images=1x3x32x32").stdout
    assert f"{path} --shape images=1x3x32x32 --measure-missing" in said


def test_a_network_whose_outputs_are_not_finite_is_measured_with_a_warning(tmp_path: Path) -> None:
    said = run("benchmark", "--rounds", "3", saved(tmp_path, [op("Sqrt", "x", "y")], {"x": (FLOAT, (1, 64))}))
    assert said.exit_code == 0
    assert "are not finite for random inputs; --input gives others" in said.stderr


def test_a_given_input_makes_outputs_finite(tmp_path: Path) -> None:
    said = run("benchmark", "--rounds", "3", saved(tmp_path, [op("Sqrt", "x", "y")], {"x": (FLOAT, (1, 64))}), "--input", "x=4")
    assert said.exit_code == 0
    assert "not finite" not in said.stderr


@pytest.mark.slow
def test_a_table_holds_a_layer_whose_output_has_no_dimensions(tmp_path: Path) -> None:
    path = saved(tmp_path, [op("Relu", "x", "r"), op("ReduceMean", "r", "y", keepdims=0)], {"x": (FLOAT, (1, 64))})
    table = tmp_path / "t.parquet"
    built = run("build", path, "--runtime", "onnxruntime", "--out", table, "--rounds", "3")
    assert built.exit_code == 0, built.output
    assert [layer["source"] for layer in run_json("predict", table, path)["layers"]] == ["measured", "measured"]


@pytest.mark.slow
def test_the_latency_of_the_layers_that_a_table_has_is_told_beside_those_that_it_lacks(tmp_path: Path) -> None:
    shape, table = {"x": (FLOAT, (1, 64))}, tmp_path / "t.parquet"
    succeed("build", saved(tmp_path, [op("Relu", "x", "y")], shape), "--runtime", "onnxruntime", "--out", table, "--rounds", "3")
    said = run("predict", table, saved(tmp_path, [op("Relu", "x", "r"), op("Erf", "r", "y")], shape)).stdout
    assert "1 of 2 layers are missing" in said
    assert "the others of model.onnx: " in said


def test_a_model_of_text_is_told_with_what_to_measure_instead(tmp_path: Path) -> None:
    nodes = [op("Shape", "x", "s"), op("Cast", "s", "y", to=FLOAT)]
    text = saved(tmp_path, nodes, {"x": (TensorProto.STRING, (3,))}, output=(1,))
    said = run("benchmark", text, "--rounds", 3)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "input of text, which cannot be made up; give the part of the network that works on numbers alone" in said.stderr


def test_numbers_are_not_given_to_an_input_of_text(tmp_path: Path) -> None:
    text = saved(tmp_path, [op("Identity", "x", "y")], {"x": (TensorProto.STRING, (3,))}, output=(3,))
    with pytest.raises(ModelError, match=r"input x is text of shape \(3,\), not int64 of shape \(\)"):
        complete_onnx(text, given_inputs([], ["x=1"]))


def test_operators_may_be_in_any_order_in_the_file(tmp_path: Path) -> None:
    nodes = [op("Relu", "m", "y"), op("Tanh", "x", "m")]
    assert [layer.op for layer in read_onnx(saved(tmp_path, nodes, {"x": (FLOAT, (1, 8))})).layers] == ["tanh", "relu"]


def test_inputs_of_types_that_runners_do_not_fill_have_their_values_in_the_file(tmp_path: Path) -> None:
    nodes = [op("Cast", "x", "f", to=FLOAT), op("Relu", "f", "y")]
    path = saved(tmp_path, nodes, {"x": (TensorProto.FLOAT8E4M3FN, (4, 8))}, output=(4, 8), ir_version=9, opset=19)
    opened = session(complete_onnx(path))
    assert not opened.get_inputs()
    assert np.isfinite(opened.run(None, {})[0]).all()


def test_a_layer_alone_that_reads_such_a_type_has_its_values_too(tmp_path: Path) -> None:
    nodes = [op("Cast", "x", "e", to=TensorProto.FLOAT8E4M3FN), op("Cast", "e", "y", to=FLOAT)]
    graph = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, output=(4, 8), ir_version=9, opset=19))
    assert [len(session(file).get_inputs()) for file in graph.opaques.values()] == [1, 0]


@pytest.mark.parametrize("packed", [TensorProto.INT4, TensorProto.UINT4])
def test_tensors_of_four_bits_between_layers_are_read(packed: int, tmp_path: Path) -> None:
    nodes = [op("Cast", "x", "packed", to=packed), op("Cast", "packed", "plain", to=FLOAT), op("Neg", "plain", "y")]
    graph = executed(saved(tmp_path, nodes, {"x": (FLOAT, (4, 8))}, output=(4, 8), ir_version=10, opset=21))
    assert [node.layer.op for node in graph.nodes][-1] == "Neg"


def test_a_version_of_an_operator_that_the_runtime_lacks_is_told_with_the_way_out(tmp_path: Path) -> None:
    nodes = [op("AveragePool", "x", "y", kernel_shape=[1, 1])]
    path = saved(tmp_path, nodes, {"x": (FLOAT, (1, 1, 4, 8))}, output=(1, 1, 4, 8), ir_version=3, opset=1)
    with pytest.raises(ModelError, match=r"Could not find an implementation .*; it lacks that version"):
        read_onnx(path)


@pytest.mark.slow
def test_a_network_that_fails_for_random_values_says_how_to_give_others(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMin", ["x", "axes"], ["y"], keepdims=0)]
    path = saved(tmp_path, nodes, {"x": (FLOAT, (3, 2, 4)), "axes": (TensorProto.INT64, (1,))}, output=(3, 4), opset=18)
    with pytest.raises(ModelError, match=r"its inputs were random, --input NAME=FILE\.npy gives others"):
        measure_files([path], Target("local", "onnxruntime"))
