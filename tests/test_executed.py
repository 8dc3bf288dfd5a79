"""What the runtime on this machine says that it executes: listed, measured as it is, and predicted from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from asking import BLOCK, answer
from asking_litert import operators_of
from graphs import in_a_row
from test_profile_cli import run, run_json

from device_agents.memory import MemoryAgent
from profiler.formats.model_file import FORMATS
from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.execution import ExecutionRules
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec, conv2d, depthwise_conv2d, fully_connected
from profiler.measure.executed import EMPTY_CALL, PROBE, compared, executed_nodes
from profiler.measure.loop import MeasurementRun
from profiler.measure.per_layer import inside_ms, layers_inside
from profiler.measure.session import Session
from profiler.measure.state import MeasurementState
from profiler.progress import Silent
from profiler.protocol.events import Done, Executed, Header, Measurement, NetworkAdded, Refresh, RunEvent
from profiler.protocol.job import Job
from profiler.protocol.journal import journal_path, read_journal
from profiler.protocol.settings import Target, TimingSettings
from profiler.tables.build import build
from profiler.tables.limits import COLD, limit_models
from profiler.tables.plan import read_plan
from profiler.tables.table import Table, load_table

IMAGE = (1, 24, 24, 3)
QUICK = TimingSettings(rounds=2, max_rounds=2, network_rounds=3, measurement_ms=1.0, warmup_ms=0.2, sample_ms=0.1, min_round_s=0.0)
ONNX = Target(runtime="onnxruntime")


def network(activation: str = "relu", bias: bool = True) -> Graph:
    """Convolutions, with an activation that onnxruntime fuses into them, and a softmax that we do not model."""
    stem = conv2d(IMAGE, 16, 3, stride=2, activation=activation, bias=bias)
    layers = [stem]
    for channels in (24, 32, 40):
        layers.append(depthwise_conv2d(layers[-1].output, 3, activation=activation))
        layers.append(conv2d(layers[-1].output, channels, 1, activation=activation))
    return in_a_row(*layers, LayerSpec("global_avg_pool", (layers[-1].output,), (1, 1, 1, 40)))


def onnx_file(folder: Path, activation: str = "relu") -> Path:
    path = folder / f"{activation}.onnx"
    path.write_bytes(FORMATS["onnx"].write(network(activation)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("executed")


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    """A table of this machine, of a user's file."""
    build([read_plan(onnx_file(folder))], ONNX, folder / "t.parquet", settings=QUICK)
    return folder / "t.parquet"


@pytest.fixture
def table(built: Path) -> Table:
    return load_table(built)


def test_the_rows_are_the_operators_that_the_runtime_executes(table: Table) -> None:
    assert set(table.rows) == set(ExecutionRules("onnxruntime", BLOCK).entries(network()).layers)


def test_the_table_keeps_what_is_executed_for_the_file(table: Table) -> None:
    (graph,) = table.info.files.values()
    assert graph.executed and set(table.info.rules.entries(graph).layers) == set(table.rows)


def test_parts_of_the_file_are_held_out_beside_the_whole(table: Table) -> None:
    assert table.info.held_out.networks >= 3
    assert table.info.calibration.networks >= 4


def test_layers_inside_the_running_network_are_known_for_fit_and_check(table: Table) -> None:
    assert table.info.calibration.layers_inside >= 4 * table.info.calibration.networks
    assert table.info.held_out.layers > 0
    for checked in table.info.held_out.checked:
        assert sum(layer.inside_ms for layer in checked.layers) <= checked.measured_ms * 1.0001


@pytest.fixture(scope="module")
def litert_table(folder: Path) -> Table:
    """The same of a .tflite file, whose runtime saves no graph."""
    path = folder / "network.tflite"
    path.write_bytes(FORMATS["tflite"].write(network()))
    return build([read_plan(path)], Target(runtime="litert"), folder / "tflite.parquet", settings=QUICK)


@pytest.mark.slow
def test_a_tflite_file_is_cut_into_parts_too_and_its_layers_are_known_inside(litert_table: Table) -> None:
    info = litert_table.info
    assert info.held_out.networks >= 3 and info.calibration.networks >= 4
    assert info.calibration.layers_inside >= 4 * info.calibration.networks
    assert (info.unlike, len(info.files)) == ((), 1)


def test_every_network_is_profiled_in_passes_that_lie_apart(built: Path) -> None:
    events = list(read_journal(journal_path(built)))
    networks = {event.model for event in events if isinstance(event, NetworkAdded)}
    answers = [(place, event) for place, event in enumerate(events) if isinstance(event, Executed) and event.model in networks]
    measured = [place for place, event in enumerate(events) if isinstance(event, Measurement)]
    for name in networks:
        places = [place for place, event in answers if event.model == name]
        assert len(places) == 4 and places[-1] > measured[0]
        assert [event.graph is not None for _, event in answers if event.model == name] == [True, False, False, False]


def test_networks_that_are_measured_again_are_asked_again() -> None:
    state = MeasurementState.of([Header(5, ONNX, TimingSettings()), NetworkAdded("n", "check", network())])
    state.see(replace(answer(FORMATS["onnx"].write(network())), model="n"))
    assert executed_nodes(state, "n")
    state.see(Refresh(("n",)))
    assert not state.executed and executed_nodes(state, "n") is None


def test_what_is_far_from_settled_gets_all_its_rounds_in_one_job() -> None:
    """The device is replaced by one whose latency changes from round to round."""
    jobs: list[Job] = []

    class Changing:
        name = "changing"
        tells_executed = False

        def run(self, job: Job) -> Iterator[RunEvent]:
            jobs.append(job)
            for number, names in job.schedule:
                yield from (Measurement(key, number, 1, (1_000_000 + 300_000 * (number % 2),) * 5) for key in names)
            yield Done()

    run_ = MeasurementRun(Session(MemoryAgent("memory:"), Changing(), ONNX, TimingSettings()), Silent())
    keys = run_.add_layers([conv2d((1, 4, 4, 8), 8, 1)])
    run_.measure(dict.fromkeys(keys, 6), "measuring")
    run_.settle(dict.fromkeys(keys, 18))
    assert [sum(len(names) for _, names in job.schedule) for job in jobs] == [6, 12]


def test_a_call_is_measured_and_counted_once(table: Table) -> None:
    assert 0 < table.info.calibration.call_ms < min(row.latency_ms.value for row in table.rows.values()) * 2


def test_the_runner_is_asked_to_leave_operators_as_they_are_and_to_rotate_the_cold_ones() -> None:
    """The device is replaced by one that only notes its job."""
    jobs: list[Job] = []

    class Noting:
        name = "noting"
        tells_executed = True

        def run(self, job: Job) -> Iterator[RunEvent]:
            jobs.append(job)
            yield Done()

    session = Session(MemoryAgent("memory:"), Noting(), ONNX, TimingSettings())
    run_ = MeasurementRun(session, Silent())
    heavy = conv2d((1, 4, 4, 128), 128, 1)
    keys = run_.add_layers([heavy])
    keys += run_.add(limit_models(run_, {heavy.key: heavy}))
    run_.measure(dict.fromkeys(keys, 1), "measuring")
    (job,) = jobs
    sent = {model["id"]: model for model in job.to_dict()["models"]}
    assert all(model["as_it_is"] for model in sent.values())
    assert {key: model["copies"] > 1 for key, model in sent.items()} == {
        heavy.key: False,
        EMPTY_CALL: False,
        COLD + heavy.key: True,
    }


def test_a_file_that_the_table_was_built_from_has_the_layers_of_the_runtime_s_answer(built: Path, folder: Path) -> None:
    said = run_json("predict", str(built), str(onnx_file(folder)), "--json")
    assert said["from_runtime"] and not said["missing"]


def test_a_file_with_another_activation_lacks_its_layers_by_name_and_has_them_measured(built: Path, folder: Path) -> None:
    other = onnx_file(folder, "relu6")
    said = run("predict", str(built), str(other)).output
    assert "differs from a layer of the table only in its activation: relu6 instead of none" in said
    assert f"profile predict {built} {other} --measure-missing" in said
    added = run_json("predict", str(built), str(other), "--measure-missing", "--json")
    assert added["from_runtime"] and not added["missing"]


@pytest.mark.parametrize("ruled", [network(), in_a_row(*network().layers[:-1])])
def test_rules_that_contradict_litert_are_told(ruled: Graph) -> None:
    """The last layer is missing from the graph, but not from what LiteRT executes."""
    state = MeasurementState.of([Header(5, Target(runtime="litert"), TimingSettings())])
    state.see(NetworkAdded("n", "check", ExecutionRules("litert").executed(replace(ruled, name="some"))))
    operators = tuple(replace(item, samples_us=(1,)) for item in operators_of(FORMATS["tflite"].write(network())))
    state.see(Executed(model="n", round=0, operators=operators, inferences_us=(9,)))
    assert compared(state) == (1, () if ruled == network() else ("some",))


def test_the_layers_of_a_file_are_listed_as_the_runtime_says(folder: Path) -> None:
    said = run_json("layers", str(onnx_file(folder)), "--json")
    assert said["from_runtime"] and {row["layout"] for row in said["layers"]} >= {f"nchwc{BLOCK}"} if BLOCK > 1 else {"plain"}


def operator(*samples_us: int) -> ExecutedOperator:
    return ExecutedOperator(name="a", op="Conv", partition="CPU", index=0, samples_us=samples_us)


def passes(*us: tuple[int, ...]) -> list[Executed]:
    """Answers to be profiled, each with these times of its operators."""
    return [
        Executed(model="a", round=0, operators=tuple(operator(value, value, 10 * value) for value in each), inferences_us=(9, 9, 9))
        for each in us
    ]


def test_what_the_profiler_costs_is_taken_off_every_operator_alike() -> None:
    assert inside_ms(passes((104, 204)), passes((4,)), 0.3) == pytest.approx([0.1, 0.2])


def test_operators_take_as_long_together_as_the_network_without_a_profiler() -> None:
    assert inside_ms(passes((204, 404)), passes((4,)), 0.3) == pytest.approx([0.1, 0.2])


def test_passes_while_the_device_was_slow_do_not_count() -> None:
    assert inside_ms(passes((104, 204), (804, 204), (104, 204)), passes((4,), (40,)), 0.3) == pytest.approx([0.1, 0.2])


def test_a_pass_that_tells_nothing_is_left_out() -> None:
    assert inside_ms(passes((), (104, 204)), passes(()), 0.3) == pytest.approx([0.3 * 104 / 308, 0.3 * 204 / 308], rel=0.01)
    assert inside_ms(passes(()), passes((4,)), 0.3) == []


def test_no_operator_takes_less_than_nothing() -> None:
    assert min(inside_ms(passes((3, 204)), passes((4,)), 0.3)) > 0


def test_a_second_answer_keeps_only_what_is_new() -> None:
    first = answer(FORMATS["onnx"].write(network()))
    again = first.since(first)
    assert first.graph is not None and again.graph is None
    assert [item.samples_us for item in again.operators] == [item.samples_us for item in first.operators]
    assert not any(item.inputs or item.outputs for item in again.operators)
    assert replace(first, operators=first.operators[1:]).since(first).graph == first.graph


@pytest.mark.parametrize("ruled", [network(), network("none")])
def test_rules_that_are_wrong_are_told(ruled: Graph) -> None:
    """The rules are held against what onnxruntime says for one and the same file."""
    probe = FORMATS["onnx"].write(Graph.of_layer(conv2d((1, 8, 8, 3), 4, 3)))
    state = MeasurementState.of([Header(5, ONNX, TimingSettings())])
    state.see(NetworkAdded("n", "check", ExecutionRules("onnxruntime", BLOCK).executed(replace(ruled, name="some"))))
    for key, file in (("n", FORMATS["onnx"].write(network())), (PROBE, probe)):
        state.see(replace(answer(file), model=key))
    assert compared(state) == (1, () if ruled == network() else ("some",))


def sequence(steps: int = 16, activation: str = "gelu") -> Graph:
    up = fully_connected((1, steps, 8), 24)
    return in_a_row(up, LayerSpec(activation, (up.output,), up.output), fully_connected(up.output, 8))


@pytest.mark.parametrize("ruled", [sequence(), sequence(12), sequence(activation="relu")])
def test_rules_for_linear_layers_over_steps_are_right_where_the_runtime_computes_rows(ruled: Graph) -> None:
    state = MeasurementState.of([Header(5, ONNX, TimingSettings())])
    state.see(NetworkAdded("n", "check", ExecutionRules("onnxruntime", BLOCK).executed(replace(ruled, name="some"))))
    state.see(replace(answer(FORMATS["onnx"].write(sequence())), model="n"))
    assert compared(state) == (1, () if ruled == sequence() else ("some",))


@pytest.mark.parametrize("shape", [(1, 4, 16, 6), (1, 16, 6, 4), (1, 16, 6, 5)])
def test_rules_are_right_for_a_layer_whose_axes_an_answer_shows_in_another_order(shape: tuple[int, ...]) -> None:
    """The file has a softmax of four by sixteen by six."""
    file = FORMATS["onnx"].write(Graph.of_layer(LayerSpec("softmax", ((1, 4, 16, 6),), (1, 4, 16, 6))))
    state = MeasurementState.of([Header(5, ONNX, TimingSettings())])
    ruled = Graph.of_layer(LayerSpec("softmax", (shape,), shape), executed=True)
    state.see(NetworkAdded("n", "check", ruled))
    told = answer(file)
    assert [item.op for item in told.operators] == ["Softmax"]
    state.see(replace(told, model="n"))
    assert compared(state) == (1, () if sorted(shape) == [1, 4, 6, 16] else (ruled.name,))


def test_a_product_of_rows_inside_a_network_is_the_linear_layer_over_steps_that_the_table_has() -> None:
    state = MeasurementState.of([Header(5, ONNX, TimingSettings())])
    state.see(NetworkAdded("n", "fit", ExecutionRules("onnxruntime", BLOCK).executed(sequence())))
    state.see(replace(answer(FORMATS["onnx"].write(sequence())), model="n"))
    inside = [node.layer for node, _ in layers_inside(state, "n", 1.0)]
    assert [layer for layer in inside if layer.op == "fully_connected"] == [sequence().layers[0], sequence().layers[2]]
