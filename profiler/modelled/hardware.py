"""Descriptions of accelerators: one TOML file each, of this package (hardware/) or of a user.

Energies are in units of one multiply-accumulate of `word_bits` bits, as the literature has them, and `unit_pj` says how many
picojoules that is. A file brings the published figures that it is checked against: `profile hardware NAME` prints the model's value
beside each, and the tests hold it within `low` and `high`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from device_agents.support.text import did_you_mean
from device_agents.support.toml_file import Place, TomlFile, read_toml
from profiler.errors import HardwareError

FOLDER = Path(__file__).parent / "hardware"
DATA_TYPES = ("input", "weight", "output")
CODES = ("none", "run_length", "compressed_columns")
"""How zeros are left out of what is stored (profiler.modelled.work.stored_bits)."""
LOOPS = ("B", "G", "K", "C", "OY", "OX", "FY", "FX")
"""Of images, groups, output and input channels of a group, output rows and columns, and rows and columns of the kernel."""
MOST_ROWS = 65_536
"""No array has more rows or columns, and mappings to so many are still searched in seconds."""
Section = TypeVar("Section")


@dataclass(frozen=True, slots=True)
class UnitArray:
    """The units that multiply, as a grid."""

    rows: int
    cols: int
    macs_per_cycle: int = 1
    """Multiply-accumulates of one unit in a cycle."""


@dataclass(frozen=True, slots=True)
class Memory:
    """On-chip memory. What a unit holds is in words of `word_bits`; 0 is none."""

    buffer_bytes: int = 0
    """The memory that all units share."""
    weight_buffer_bytes: int = 0
    """Shared memory for weights only; with 0, weights reach the units without passing a shared memory."""
    keeps_activations: bool = False
    """True if inputs and outputs of a layer stay in the shared memory where they fit together, instead of passing through DRAM."""
    unit_words: int = 0
    """Of each unit, shared by all data types, ..."""
    unit_weight_words: int = 0
    """... or for each data type its own."""
    unit_input_words: int = 0
    unit_psum_words: int = 0


@dataclass(frozen=True, slots=True)
class EnergyCosts:
    """Energy of one access to a word, by level, and of one multiply-accumulate, in units of `unit_pj` picojoules."""

    unit_pj: float
    mac: float = 1.0
    unit: float = 0.0
    """The memory in a unit."""
    array: float = 0.0
    """From one unit to another."""
    buffer: float = 0.0
    weight_buffer: float = 0.0
    dram: float = 0.0


@dataclass(frozen=True, slots=True)
class Power:
    """What is spent as long as the chip runs, and what control adds to all energy on the chip."""

    clock_mw: float = 0.0
    control_share: float = 0.0
    """Of the energy on the chip, control included; below 1."""


@dataclass(frozen=True, slots=True)
class Sparsity:
    """What zeros save. A gated operation costs no energy but its cycle; a skipped one costs neither."""

    gates: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()
    code: str = "none"
    coded: tuple[str, ...] = ()
    """The data types that are stored in that code, ..."""
    coded_in: tuple[str, ...] = ("dram",)
    """... and the levels that hold them so."""
    balance: float = 1.0
    """The share of cycles in which a unit has work, where operations are skipped."""


@dataclass(frozen=True, slots=True)
class Dram:
    """Memory outside the chip."""

    gb_per_s: float = 0.0
    """Bandwidth in 1e9 bytes per second; 0 where it is not known, and then it limits nothing."""


@dataclass(frozen=True, slots=True)
class Crossbar:
    """Arrays of cells that multiply where the weights are stored, with the converters around them."""

    rows: int
    cols: int
    arrays: int
    """Of the whole chip. A layer that needs more of them runs in turns, with its weights written anew."""
    cell_bits: int
    dac_bits: int
    cell_pj: float
    """Of one cell in one step."""
    dac_pj: float
    adc_pj: float
    add_pj: float
    """Of adding one partial sum."""
    write_pj: float
    """Of writing one cell."""
    array_ns: float
    """The duration of one step of an array, ..."""
    adc_ns: float
    """... and of one conversion."""
    columns_per_adc: int
    differential: bool = False
    """True if a weight takes two columns, for its positive and its negative part."""


@dataclass(frozen=True, slots=True)
class Loops:
    """The loops that the engine zigzag may spread over the array, by ZigZag's names (`LOOPS`); none of them allows all."""

    rows: tuple[str, ...] = ()
    cols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping of the row-stationary engine, where it is explained."""

    strip: int
    channels: int
    filters: int
    channel_sets: int
    filter_sets: int
    images: int
    held: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A layer that published figures are about. Heights, widths and channels of all groups; density is the share of non-zeros."""

    name: str
    in_channels: int
    out_channels: int
    size: int
    """Height and width of the input."""
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    groups: int = 1
    input_density: float = 1.0
    weight_density: float = 1.0
    output_density: float = 1.0
    mapping: Mapped | None = None
    """How the chip ran it; without it, the engine searches."""


@dataclass(frozen=True, slots=True)
class Published:
    """A published figure, and the limits within which the model's value is taken to agree with it."""

    what: str
    """A name in `QUANTITIES` of profiler.modelled.checks."""
    value: float
    low: float
    high: float
    source: str
    layer: str = ""
    """The name of a workload; empty for the sum over all, or for the chip."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator as its file describes it."""

    name: str
    about: str
    source: str
    engine: str
    """A name in `ENGINES` of profiler.modelled.engines."""
    clock_mhz: float
    word_bits: int
    energy: EnergyCosts
    process_nm: float = 0.0
    batch: int = 1
    """Images that are processed together unless the user asks for another number."""
    notes: tuple[str, ...] = ()
    """What is remembered, estimated or left out, for people."""
    array: UnitArray = UnitArray(1, 1)
    memory: Memory = Memory()
    power: Power = Power()
    sparsity: Sparsity = Sparsity()
    dram: Dram = Dram()
    crossbar: Crossbar | None = None
    zigzag: Loops | None = None
    workload: tuple[Workload, ...] = ()
    published: tuple[Published, ...] = ()

    @property
    def units(self) -> int:
        """Those that multiply at once: of the grid, or arrays of cells."""
        return self.array.rows * self.array.cols if self.crossbar is None else self.crossbar.arrays


@dataclass(frozen=True, slots=True)
class HardwareFile:
    """A description with the text it was read from, which a table keeps."""

    hardware: Hardware
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def shipped(self) -> bool:
        """True if the description is one of this package, with the engine that it names itself."""
        return self in shipped_hardware().values()


@cache
def shipped_hardware() -> Mapping[str, HardwareFile]:
    """The descriptions of this package, by the names of their files."""
    return {path.stem: read_hardware(path) for path in sorted(FOLDER.glob("*.toml"))}


def open_hardware(name: str) -> HardwareFile:
    """A description of this package by name, or a user's by its path. `HardwareError` if there is none or it is invalid."""
    if name in shipped_hardware():
        return shipped_hardware()[name]
    if name.endswith(".toml") or "/" in name:
        return read_hardware(Path(name))
    raise HardwareError(
        f"there is no hardware {name!r}; {did_you_mean(name, shipped_hardware())}; a description of your own is given by its path, "
        "such as ./mine.toml"
    )


def read_hardware(path: Path) -> HardwareFile:
    """Read a description from a file. `HardwareError` in one sentence, with the line where there is one."""
    return _described(read_toml(path, HardwareError, "; `profile hardware` lists what there is"))


def parse_hardware(text: str, name: str) -> HardwareFile:
    """Read a description from its text; `name` stands in errors for a path."""
    try:
        return _described(TomlFile(Path(name), text, tomllib.loads(text), HardwareError))
    except tomllib.TOMLDecodeError as exc:
        raise HardwareError(f"{name} is not TOML: {exc}") from exc


def _described(file: TomlFile) -> HardwareFile:
    hardware: Hardware = _section(file, file.plain, Hardware, (), "a description of hardware")
    for name, value, known in (
        *(("coded", value, DATA_TYPES) for value in hardware.sparsity.coded),
        *(("gates", value, DATA_TYPES) for value in hardware.sparsity.gates),
        *(("skips", value, DATA_TYPES) for value in hardware.sparsity.skips),
        ("code", hardware.sparsity.code, CODES),
    ):
        file.one_of(value, known, ("sparsity", name), "sparsity")
    for name, loops in asdict(hardware.zigzag or Loops()).items():
        for loop in loops:
            file.one_of(loop, LOOPS, ("zigzag", name), "zigzag")
    workloads = {workload.name for workload in hardware.workload}
    for place, figure in enumerate(hardware.published):
        if figure.layer and figure.layer not in workloads:
            raise file.fail(
                ("published", place), f"published: there is no workload {figure.layer!r}; {did_you_mean(figure.layer, workloads)}"
            )
        if not figure.low <= figure.high:
            raise file.fail(("published", place), f"published: low is {figure.low:g}, which is more than high, {figure.high:g}")
    for where, divisor in ((("clock_mhz",), hardware.clock_mhz), (("energy", "unit_pj"), hardware.energy.unit_pj)):
        if divisor <= 0:
            raise file.fail(where, f"{where[-1]} has to be more than 0")
    for section, sizes in (("array", hardware.array), ("crossbar", hardware.crossbar)):
        for key in ("rows", "cols"):
            if sizes is not None and getattr(sizes, key) > MOST_ROWS:
                raise file.fail((section, key), f"{section}: {key} has to be at most {MOST_ROWS:,}")
    if hardware.power.control_share >= 1:
        raise file.fail(("power", "control_share"), "power: control_share is a share of all energy and has to be below 1")
    return HardwareFile(hardware, file.text)


def _section(file: TomlFile, plain: Any, kind: type[Section], place: Place, where: str) -> Section:
    """The dataclass of a section: every key is a field, of the field's type, and no figure is negative."""
    table, known = file.table(plain, place), fields(kind)  # type: ignore[arg-type]
    file.known(table, [field.name for field in known], place, where)
    hints, values = get_type_hints(kind), {}
    for field in known:
        if field.name in table:
            # counts are at least 1, except where 0 says that there is none
            least = 1 if hints[field.name] is int and field.default != 0 else 0
            values[field.name] = _value(file, table[field.name], hints[field.name], (*place, field.name), where, least)
        elif field.default is MISSING:
            raise file.fail(place, f"{where} lacks {field.name}")
    return kind(**values)


def _value(file: TomlFile, plain: Any, hint: Any, place: Place, where: str, least: int) -> Any:
    """The value of a field that is declared as this type."""
    if get_origin(hint) is UnionType:  # a section that may be missing
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple:
        found = file.typed(plain, list, place, where)
        return tuple(_value(file, item, get_args(hint)[0], (*place, number), where, least) for number, item in enumerate(found))
    if is_dataclass(hint) and isinstance(hint, type):
        return _section(file, plain, hint, place, next(str(part) for part in reversed(place) if isinstance(part, str)))
    if hint in (int, float):
        return hint(file.number(plain, hint, place, where, least, 1e15))
    return file.typed(plain, hint, place, where)
