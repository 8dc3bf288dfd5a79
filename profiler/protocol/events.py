"""What happens while something is measured, as types: every line of a runner and of a journal is one of these.

A line becomes one of them in profiler.protocol.lines, where it is checked once. Behind that there are only the types below, and
`match` on them ends with `assert_never`, so that mypy names every place that a new event concerns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import Any

from profiler.layers.executed_operator import ExecutedOperator
from profiler.layers.graph import Graph
from profiler.layers.layer import LayerSpec
from profiler.protocol.settings import Target, TimingSettings

PROTOCOL = 8
MOST_NS = 10**13
"""A measurement does not take hours."""
HIGHEST = 1e15
"""No load, temperature or clock is as large as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of a device at one moment. What it does not let us read is None."""

    load_1min: float | None = None
    frequencies_khz: tuple[int | None, ...] | None = None
    """The clock of each core."""
    temperature_c: float | None = None
    """The hottest thermal zone."""
    throttled: int | None = None
    """How often cores have been slowed down for their temperature since the device was started."""
    thermal_status: int | None = None
    """Android's, from 0 (none) to 6 (shutdown)."""

    def __post_init__(self) -> None:
        for value in (self.load_1min, self.temperature_c, self.throttled, self.thermal_status):
            if value is not None and not abs(value) < HIGHEST:  # this also refuses a NaN
                raise ValueError(f"{value} is neither a load nor a temperature")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """A device as its runner describes it. What could not be read is None."""

    system: str | None = None
    kernel: str | None = None
    machine: str | None = None
    """The instruction set, as `uname -m` prints it."""
    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    governor: str | None = None
    python: str | None = None
    """The version of the interpreter that the runner is run by; None for the native runner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A runner has started: what it is, which runtime it has loaded, and on what device."""

    protocol: int
    version: str
    """The runtime's."""
    device: DeviceFacts
    flags: Mapping[str, Any]
    """How the runtime was built and set, as far as it tells; `simulated` or `replayed` where nothing was measured."""
    runtime: str | None = None
    runner: str | None = None
    build: str | None = None
    """The compiler that built the native runner."""
    library_sha256: str | None = None
    runner_sha256: str | None = None
    affinity: tuple[int, ...] | None = None
    """The cores it may run on."""
    pid: int | None = None
    energy_source: str | None = None
    """The counter that energy is read from; None where there is none that can be read."""
    utc: str | None = None
    """When the host recorded it, in ISO 8601."""

    def __post_init__(self) -> None:
        _check_date(self.utc)


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """A runtime that was looked for on a device: its version, or that it is missing, or why it does not work."""

    version: str | None = None
    missing: bool = False
    broken: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Conditions):
    """The answer of a runner that was asked what the device is and which runtimes work there."""

    protocol: int
    device: DeviceFacts
    runtimes: Mapping[str, RuntimeState]
    runner: str | None = None
    energy_source: str | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """Another host measures on the device."""

    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Conditions):
    """A round begins: each of its models is measured once, in a shuffled order."""

    round: int
    clock_ns: int | None = None
    """The device's monotonic clock."""

    def __post_init__(self) -> None:
        Conditions.__post_init__(self)
        _check_round(self.round)


@dataclass(frozen=True, slots=True)
class Begin:
    """A model is about to be opened and measured. If nothing follows, it is the one that took the runner down."""

    model: str
    round: int

    def __post_init__(self) -> None:
        _check_round(self.round)


@dataclass(frozen=True, slots=True)
class Samples:
    """The raw samples of one model in one round."""

    model: str
    """The key of the layer or network."""
    round: int
    loops: int
    """Inferences in each sample."""
    samples_ns: tuple[int, ...]
    switched: tuple[int, ...] = ()
    """Places of the samples during which the kernel took the process off its core."""
    started_ns: int = 0
    """The device's monotonic clock before the first sample."""
    clock_khz: tuple[int | None, ...] | None = None
    """The clock of the fastest core before and after."""
    core: int | None = None
    """The core that the last sample ended on."""

    def __post_init__(self) -> None:
        _check_round(self.round)
        if self.loops < 1 or not self.samples_ns or not (min(self.samples_ns) > 0 and max(self.samples_ns) < MOST_NS):
            raise ValueError(f"a measurement needs positive samples, got {self.loops} loops and {self.samples_ns[:3]}")
        if self.switched and not (min(self.switched) >= 0 and max(self.switched) < len(self.samples_ns)):
            raise ValueError("a switch is in a sample that is not there")

    @property
    def undisturbed_ns(self) -> tuple[int, ...]:
        """The samples without a switch, or all of them if there are none without."""
        if not self.switched:
            return self.samples_ns
        left_out = set(self.switched)
        return tuple(value for place, value in enumerate(self.samples_ns) if place not in left_out) or self.samples_ns

    @property
    def quiet_ms(self) -> float:
        """Milliseconds of one inference: the median of the undisturbed samples."""
        return median(self.undisturbed_ns) / self.loops / 1e6


@dataclass(frozen=True, slots=True)
class Measurement(Samples):
    """One model was measured in one round."""

    tags: tuple[str, ...] = ()
    """What disturbed it as a whole (profiler.measure.disturbance). That is only known afterwards, and is not part of a line."""


@dataclass(frozen=True, slots=True)
class Reference(Samples):
    """The reference layer was measured, shortly, to notice a drift of the device."""


@dataclass(frozen=True, slots=True)
class NotFinite:
    """The outputs of a model that is measured, and need not have finite ones, are not finite."""

    model: str
    round: int

    def __post_init__(self) -> None:
        _check_round(self.round)


@dataclass(frozen=True, slots=True)
class Output:
    """The first values of one output of a model."""

    shape: tuple[int, ...]
    values: tuple[Any, ...]
    """Numbers or booleans."""
    type: str = "float32"
    """The element type as numpy names it."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A model was run once on inputs that are the same on every device."""

    model: str
    round: int
    outputs: tuple[Output, ...]

    def __post_init__(self) -> None:
        _check_round(self.round)


@dataclass(frozen=True, slots=True)
class Idle:
    """The energy that the device took while nothing ran."""

    round: int
    duration_ns: int
    energy_uj: int

    def __post_init__(self) -> None:
        _check_round(self.round)
        _check_energy(self.duration_ns, self.energy_uj)

    @property
    def power_w(self) -> float:
        return self.energy_uj / self.duration_ns * 1e3


@dataclass(frozen=True, slots=True)
class Energy:
    """The energy that the device took while a model ran again and again."""

    model: str
    round: int
    inferences: int
    duration_ns: int
    energy_uj: int

    def __post_init__(self) -> None:
        _check_round(self.round)
        _check_energy(self.duration_ns, self.energy_uj)
        if self.inferences < 1:
            raise ValueError("an energy measurement needs an inference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What a runtime executes for a model on this device (PROTOCOL.md, "The executed graph")."""

    model: str
    round: int
    operators: tuple[ExecutedOperator, ...]
    """In the order in which they run."""
    inferences_us: tuple[int, ...]
    """Microseconds of each profiled inference."""
    graph: str | None = None
    """The optimised model as the runtime saves it, in base64, without the values of large weights; None if it saves none."""
    reason: str | None = None
    """Why the graph or the operators are missing; None if they are there, or never are with this runtime."""

    def __post_init__(self) -> None:
        _check_round(self.round)
        for item in self.operators:
            if len(item.samples_us) != len(self.inferences_us):
                raise ValueError(f"{item.name!r:.60} has {len(item.samples_us)} samples of {len(self.inferences_us)} inferences")

    def since(self, first: Executed) -> Executed:
        """This answer without graph and shapes if they are those of the first answer for the model, and unchanged otherwise."""
        if self.graph != first.graph or self._operators() != first._operators():
            return self
        return replace(self, graph=None, operators=tuple(replace(item, inputs=(), outputs=()) for item in self.operators))

    def _operators(self) -> tuple[ExecutedOperator, ...]:
        return tuple(replace(item, samples_us=()) for item in self.operators)


@dataclass(frozen=True, slots=True)
class Failed:
    """A model that the runtime refuses, or one that takes the runner down (`crash`). It is not measured again."""

    model: str
    round: int
    reason: str
    crash: bool = False

    def __post_init__(self) -> None:
        _check_round(self.round)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Conditions):
    """The job is at its end."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The runner ended before its job was done. Only the host makes this event."""

    reason: str


@dataclass(frozen=True, slots=True)
class Paused:
    """Measuring stopped for a while: the link broke off, or the device was left to cool."""

    reason: str


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a journal: where and how everything in it was measured."""

    format: int
    target: Target
    settings: TimingSettings


@dataclass(frozen=True, slots=True)
class LayerAdded:
    """A layer is about to be measured for the first time."""

    model: str
    layer: LayerSpec


@dataclass(frozen=True, slots=True)
class NetworkAdded:
    """A whole network is about to be measured for the first time."""

    model: str
    role: str
    """`fit`: the calibration is fitted to it; `check`: it is held out."""
    graph: Graph
    """What the runtime executes for it."""
    file_sha256: str | None = None
    """The digest of the user's file that it is, in hexadecimal; None for a file that we have written."""
    by_rules: bool = True
    """True if the graph follows from our rules, False if it is the runtime's own answer for a user's file or for a part of one."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """What the device was set to for measuring, and how it was found (profiler.devices.conditioning)."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refresh:
    """From here on earlier measurements of these models do not count: they are measured again."""

    models: tuple[str, ...]
    utc: str | None = None

    def __post_init__(self) -> None:
        _check_date(self.utc)


@dataclass(frozen=True, slots=True)
class StaircaseRule:
    """What a sweep has shown of one axis of one kind of layer (profiler.latency.staircase.Staircase)."""

    kind: str
    axis: str
    step: int
    flat: bool
    granularity: int

    def __post_init__(self) -> None:
        if self.granularity < 1 or self.step < self.granularity or self.step % self.granularity:
            raise ValueError(f"a step of {self.step} channels is no multiple of {self.granularity}")


@dataclass(frozen=True, slots=True)
class StaircaseRules:
    """The rules that the sweeps of a build have shown."""

    rules: tuple[StaircaseRule, ...]


@dataclass(frozen=True, slots=True)
class ErrorEstimate:
    """A table's own estimate of its error on whole networks, in the middle of a build."""

    wall_s: float
    layers: int
    error_percent: float | None
    between_percent: float
    """The part of it that comes of interpolating between widths."""


@dataclass(frozen=True, slots=True)
class Spent:
    """How long one run of a build took; the last line of a run that ended in order."""

    wall_s: float


ModelEvent = Begin | NotFinite | Measurement | Reference | Outputs | Energy | Executed | Failed
"""An event about one model."""
Result = Measurement | Reference | Outputs | Energy | Executed | Failed
"""What becomes of a model that has begun. A runner waits until each of these is recorded."""
RunnerEvent = (
    Hello | Busy | Round | Begin | NotFinite | Measurement | Reference | Outputs | Idle | Energy | Executed | Failed | Done | Probe
)  # fmt: skip
"""What a line of a runner may be."""
RunEvent = RunnerEvent | Crashed
"""What running a job brings."""
SessionEvent = (
    Hello | Round | Begin | NotFinite | Measurement | Reference | Outputs | Idle | Energy | Executed | Failed | Done | Paused
)  # fmt: skip
"""What a session passes on."""
JournalEvent = (
    Header | Hello | LayerAdded | NetworkAdded | Round | Measurement | Reference | Idle | Energy | Executed | Conditioning | Paused
    | Failed | Refresh | StaircaseRules | ErrorEstimate | Spent
)  # fmt: skip
"""What a line of a journal may be."""

RUNNER_EVENTS: Mapping[str, type[RunnerEvent]] = {
    "hello": Hello, "busy": Busy, "round": Round, "begin": Begin, "not_finite": NotFinite, "measurement": Measurement,
    "reference": Reference, "outputs": Outputs, "idle": Idle, "energy": Energy, "executed": Executed, "failed": Failed,
    "done": Done, "probe": Probe,
}  # fmt: skip
JOURNAL_EVENTS: Mapping[str, type[JournalEvent]] = {
    "journal": Header, "hello": Hello, "layer": LayerAdded, "network": NetworkAdded, "round": Round, "measurement": Measurement,
    "reference": Reference, "idle": Idle, "energy": Energy, "executed": Executed, "conditioning": Conditioning,
    "paused": Paused, "failed": Failed, "refresh": Refresh, "staircases": StaircaseRules, "error": ErrorEstimate, "spent": Spent,
}  # fmt: skip


def _check_round(number: int) -> None:
    if number < 0:
        raise ValueError(f"there is no round {number}")


def _check_energy(duration_ns: int, energy_uj: int) -> None:
    if duration_ns < 1 or energy_uj < 0:
        raise ValueError(f"{energy_uj} µJ in {duration_ns} ns is no energy")


def _check_date(utc: str | None) -> None:
    if utc is not None:
        datetime.fromisoformat(utc)
