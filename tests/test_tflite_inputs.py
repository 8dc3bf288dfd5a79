"""TFLite files as people have them: open shapes, weights behind the flatbuffer, other signatures, operators that are not known."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from asking_litert import operators_of
from test_profile_cli import run, run_json
from test_tflite_reader import CONVOLUTION, Changed, bytes_of, custom_operator

from device_agents.on_device.runner.runtimes.litert import LiteRt
from profiler.errors import ModelError
from profiler.formats.given import given_inputs
from profiler.formats.model_file import FORMATS
from profiler.formats.tflite.complete import complete_tflite, other_signatures
from profiler.formats.tflite.reader import read_tflite
from profiler.formats.tflite.writer import write_tflite
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, conv2d, fully_connected

TFLITE = FORMATS["tflite"]
TWO = (conv2d((1, 5, 5, 2), 3, 3), LayerSpec("relu", ((1, 5, 5, 3),), (1, 5, 5, 3)))


def saved(folder: Path, changed: Changed | bytes) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(changed if isinstance(changed, bytes) else changed.data)
    return path


def with_signature(name: str, *signature: int) -> Changed:
    changed = Changed(bytes_of(CONVOLUTION))
    changed.tensor(name).shapeSignature = np.array(signature, np.int32)
    return changed


# ---- open shapes


@pytest.mark.parametrize("size", ["9x9", "5x8", "32x20"])
def test_a_network_is_read_at_the_given_size(tmp_path: Path, size: str) -> None:
    path = saved(tmp_path, bytes_of(CONVOLUTION))
    (layer,) = read_tflite(path, given_inputs([f"input_0=1x{size}x2"], [])).layers
    height, width = map(int, size.split("x"))
    assert layer == conv2d((1, height, width, 2), 3, 3)


def test_the_file_that_is_sent_has_the_given_size(tmp_path: Path) -> None:
    data = complete_tflite(saved(tmp_path, bytes_of(CONVOLUTION)), given_inputs(["input_0=2x9x9x2"], []))
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert tuple(interpreter.get_input_details()[0]["shape"]) == (2, 9, 9, 2)
    assert tuple(interpreter.get_output_details()[0]["shape"]) == (2, *read_tflite(saved(tmp_path, data)).layers[0].output[1:])


def test_an_input_that_is_open_beyond_its_batch_takes_the_given_size(tmp_path: Path) -> None:
    path = saved(tmp_path, with_signature("input_0", -1, -1, -1, 2))
    assert read_tflite(path, given_inputs(["input_0=1x7x7x2"], [])).inputs == (("input_0", (1, 7, 7, 2)),)


def test_an_open_batch_is_one_and_leaves_the_file_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path, with_signature("input_0", -1, 5, 5, 2))
    assert complete_tflite(path) == path.read_bytes()


@pytest.mark.parametrize("signature", [(-1, -1, -1, 3), (1, -1, 5, 3), (1, 5, 5, -1)])
def test_an_output_that_is_open_has_the_shape_at_run_time(tmp_path: Path, signature: tuple[int, ...]) -> None:
    assert read_tflite(saved(tmp_path, with_signature("layer", *signature))).layers == (CONVOLUTION,)


def test_a_size_that_the_network_cannot_have_is_told_in_one_sentence(tmp_path: Path) -> None:
    path = saved(tmp_path, bytes_of(fully_connected((1, 4), 3)))
    with pytest.raises(ModelError, match=r"does not run in LiteRT with these shapes"):
        read_tflite(path, given_inputs(["input_0=1x5"], []))


# ---- given values


def relu(folder: Path) -> Path:
    return saved(folder, bytes_of(LayerSpec("relu", ((1, 4),), (1, 4))))


def outputs_of(folder: Path, data: bytes) -> list[list[float]]:
    """What LiteRT computes when the Python runner has filled the inputs."""
    opened = LiteRt(1, folder).open(saved(folder, data), 1, False).run_once(finite=True)
    return [output.told(100)["values"] for output in opened.outputs()]


def test_a_network_is_run_with_the_given_values(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, -2, 3.5, -4]], np.float32))
    data = complete_tflite(relu(tmp_path), given_inputs([], [f"input_0={tmp_path / 'x.npy'}"]))
    assert outputs_of(tmp_path, data) == [[1, 0, 3.5, 0]]


def test_a_given_number_is_that_of_all_elements(tmp_path: Path) -> None:
    assert outputs_of(tmp_path, complete_tflite(relu(tmp_path), given_inputs([], ["input_0=7"]))) == [[7, 7, 7, 7]]


def test_given_values_come_with_a_given_shape(tmp_path: Path) -> None:
    data = complete_tflite(relu(tmp_path), given_inputs(["input_0=2x4"], ["input_0=7"]))
    assert outputs_of(tmp_path, data) == [[7] * 8]


def test_an_array_is_the_shape_as_well(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    data = complete_tflite(relu(tmp_path), given_inputs([], [f"input_0={tmp_path / 'x.npy'}"]))
    assert outputs_of(tmp_path, data) == [[1] * 12]


def test_values_that_do_not_fit_the_input_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"input input_0 takes int8, not float64; give whole numbers"):
        complete_tflite(
            saved(tmp_path, write_tflite(Graph.of_layer(LayerSpec("relu", ((1, 4),), (1, 4))).with_precision("int8"))),
            given_inputs([], ["input_0=0.5"]),
        )


def test_values_for_no_input_name_the_inputs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--input names x, which is no input; the inputs are input_0"):
        complete_tflite(relu(tmp_path), given_inputs([], ["x=1"]))


def test_values_are_those_of_their_input_whatever_the_order_in_the_signature_is(tmp_path: Path) -> None:
    changed = Changed(bytes_of(LayerSpec("mul", ((1, 3, 3, 6), (1, 1, 1, 6)), (1, 3, 3, 6))))
    changed.model.signatureDefs[0].inputs.reverse()
    data = complete_tflite(saved(tmp_path, changed), given_inputs([], ["input_0=2", "input_1=3"]))
    assert outputs_of(tmp_path, data) == [[6] * 54]
    assert len(operators_of(data)) == 1  # the compiled model takes them as well


def test_a_layer_alone_that_reads_an_input_is_run_with_the_values_that_are_given_for_it(tmp_path: Path) -> None:
    graph = read_tflite(saved(tmp_path, roots()), given_inputs([], ["input_0=4"]))
    (file,) = graph.opaques.values()
    assert outputs_of(tmp_path, file) == [[2, 2, 2, 2]]


def test_layers_that_differ_in_given_values_only_are_one_layer(tmp_path: Path) -> None:
    path = saved(tmp_path, roots())
    assert read_tflite(path, given_inputs([], ["input_0=4"])).layers == read_tflite(path).layers


def test_a_given_value_makes_the_outputs_of_a_network_finite(tmp_path: Path) -> None:
    said = run("benchmark", saved(tmp_path, roots()), "--rounds", "3", "--input", "input_0=4")
    assert (said.exit_code, "not finite" in said.stderr) == (0, False)


@pytest.mark.parametrize("numbers", [(2**63,), (0, 2**40, 1), (9, 0, 1)])
def test_values_that_cannot_be_those_of_inputs_are_told_in_one_sentence(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    damaged = struct.pack(f"<{len(numbers)}Q", *numbers) + b"INPUTS 1"
    with pytest.raises(ModelError, match=r"copy it again|copy the model again"):
        read_tflite(saved(tmp_path, relu(tmp_path).read_bytes() + damaged))


def roots() -> Changed:
    """The square roots of four numbers."""
    changed = Changed(bytes_of(LayerSpec("relu", ((1, 4),), (1, 4))))
    changed.rename_operator("SQRT")
    return changed


# ---- weights behind the flatbuffer, and sparse ones


def test_weights_behind_the_flatbuffer_are_read_and_sent(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    buffer = changed.model.buffers[changed.tensor("layer/weights").buffer]
    weights = bytes(buffer.data)
    buffer.data, buffer.offset, buffer.size = None, 2, len(weights)
    start = -(-len(changed.data) // 16) * 16
    buffer.offset = start
    path = saved(tmp_path, changed.data.ljust(start, b"\0") + weights)
    assert (read_tflite(path).layers, complete_tflite(path)) == ((CONVOLUTION,), path.read_bytes())


def test_weights_behind_the_flatbuffer_are_inside_of_a_file_of_another_size(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    buffer = changed.model.buffers[changed.tensor("layer/weights").buffer]
    weights = bytes(buffer.data)
    buffer.data, buffer.offset, buffer.size = None, 2, len(weights)
    buffer.offset = start = -(-len(changed.data) // 16) * 16
    path = saved(tmp_path, changed.data.ljust(start, b"\0") + weights)
    (layer,) = read_tflite(path, given_inputs(["input_0=1x9x9x2"], [])).layers
    assert layer == conv2d((1, 9, 9, 2), 3, 3)


def test_sparse_weights_are_those_of_their_layer(tmp_path: Path) -> None:
    changed = Changed(bytes_of(fully_connected((1, 64), 32)))
    weights = changed.tensor("layer/weights")
    rows, columns = np.arange(0, 33 * 4, 4, dtype=np.int32), np.tile(np.arange(0, 64, 16, dtype=np.int32), 32)
    kinds, vector = schema.DimensionType, schema.SparseIndexVector.Int32Vector
    sparsity = schema.SparsityParametersT(
        traversalOrder=np.array([0, 1], np.int32),
        dimMetadata=[
            schema.DimensionMetadataT(format=kinds.DENSE, denseSize=32),
            schema.DimensionMetadataT(
                format=kinds.SPARSE_CSR,
                arraySegmentsType=vector,
                arraySegments=schema.Int32VectorT(values=rows),
                arrayIndicesType=vector,
                arrayIndices=schema.Int32VectorT(values=columns),
            ),
        ],
    )
    changed.model.buffers.append(schema.BufferT(data=np.ones(128, np.float32).view(np.uint8)))
    sparse = changed.add_tensor("sparse", 0, (32, 64), len(changed.model.buffers) - 1)
    changed.main.tensors[sparse].sparsity = sparsity
    weights.buffer = 0
    changed.operators.insert(0, schema.OperatorT(inputs=np.array([sparse], np.int32)))
    changed.rename_operator("DENSIFY")
    changed.operators[0].outputs = np.array([changed.main.tensors.index(weights)], np.int32)
    assert read_tflite(saved(tmp_path, changed)).layers == (fully_connected((1, 64), 32),)


# ---- what is left out, and what only the device knows


def two_signatures(folder: Path) -> Path:
    changed = Changed(bytes_of(CONVOLUTION))
    changed.model.subgraphs.append(changed.main)
    changed.model.signatureDefs = [
        schema.SignatureDefT(signatureKey=key, subgraphIndex=index, inputs=[], outputs=[]) for index, key in enumerate(("a", "b"))
    ]
    return saved(folder, changed)


def test_signatures_that_are_not_measured_are_named(tmp_path: Path) -> None:
    path = two_signatures(tmp_path)
    assert other_signatures(path) == f"{path}: only signature a is measured, not b; convert each to a file of its own"


def test_a_file_that_has_gone_since_it_was_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.tflite cannot be read: No such file or directory$"):
        other_signatures(tmp_path / "gone.tflite")


def test_a_file_with_one_signature_leaves_nothing_out(tmp_path: Path) -> None:
    assert TFLITE.remark(saved(tmp_path, bytes_of(CONVOLUTION))) is None


def test_a_file_with_an_operator_that_the_runtime_does_not_know_is_listed_with_the_reason(tmp_path: Path) -> None:
    changed = Changed(bytes_of(*TWO))
    custom_operator_at(changed, 1)
    said = run("layers", str(saved(tmp_path, changed)))
    assert "conv2d" in said.stdout
    assert "MyOwnOperator" in said.stdout
    assert "it cannot run the file" in said.stdout


def test_the_layers_that_can_be_measured_are_in_the_table_and_the_other_is_named_as_missing(tmp_path: Path) -> None:
    changed = Changed(bytes_of(*TWO))
    custom_operator_at(changed, 1)
    path, table = saved(tmp_path, changed), tmp_path / "t.parquet"
    built = run("build", str(path), "--runtime", "litert", "--out", str(table), "--rounds", "3")
    assert (built.exit_code, built.stderr.count("could not be measured")) == (1, 2), built.output
    found = run_json("predict", str(table), str(path))
    assert [(layer["op"], layer["source"]) for layer in found["layers"]] == [("conv2d", "measured"), ("MyOwnOperator", "missing")]


def custom_operator_at(changed: Changed, number: int) -> None:
    changed.rename_operator("CUSTOM", custom="MyOwnOperator", number=number)
    changed.operators[number].builtinOptions = None


def test_an_unknown_operator_is_read(tmp_path: Path) -> None:
    changed = Changed(bytes_of(CONVOLUTION))
    custom_operator(changed)
    assert [layer.op for layer in read_tflite(saved(tmp_path, changed)).layers] == ["MyOwnOperator"]
