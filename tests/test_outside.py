"""Nothing from outside ends in a traceback, a hang or a large allocation: tests/readers.py says what is read, and by whom."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import changed
from PIL import Image
from readers import PROFILE, READERS, attempt

from device_agents.support.errors import ConfigError, ToolError
from netadapt.training.checkpoint import MAKES_A_STATE_DICT
from profiler.console import print_table
from profiler.errors import ModelError
from profiler.formats.model_file import read_model
from profiler.schedule.config import NotificationSettings, read_schedule
from profiler.schedule.notify import notify
from profiler.tables.table import SCHEMA

NAMES = sorted(READERS)
EXAMPLES = 40


def met(name: str, data: bytes) -> None:
    """`Fault` if the reader does what it may not."""
    found = READERS[name]
    if found.needs and importlib.util.find_spec(found.needs) is None:
        pytest.skip(f"{name} needs {found.needs}; pip install it")
    with tempfile.TemporaryDirectory() as folder:
        attempt(found, data, Path(folder))


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_every_reader_is_taken(name: str, tmp_path: Path) -> None:
    found = READERS[name]
    if found.needs and importlib.util.find_spec(found.needs) is None:
        pytest.skip(f"{name} needs {found.needs}; pip install it")
    path = tmp_path / found.file
    path.write_bytes(found.example())
    found.read(path)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES, derandomize=True, database=None)
@given(seed=st.integers(0, 2**32))
def test_an_example_with_its_structure_changed_is_taken_or_refused_in_a_sentence(name: str, seed: int) -> None:
    met(name, changed(READERS[name].form, READERS[name].example(), Random(seed)))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, derandomize=True, database=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_taken_or_refused_in_a_sentence(name: str, data: bytes) -> None:
    met(name, data)


# ------------------------------------------------------------------------------------------------- what fuzzing has found

UNKNOWN_NAMES = READERS["job"].example().replace(b'"reference": "a"', b'"reference": 0.5').replace(b'"id": "b"', b'"id": "c"')
"""Two that no model has, of different types."""
A_NUMBER_OF_BYTES = b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(J\xff\xff\xff\x7fcnumpy\ndtype\nU\x02u1\x85R)U\x01CtR."
"""A pickle whose array is of so many bytes, and of none that are there."""
NESTED_TUPLES = b"\x80\x02cnumpy\nndarray\nK\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 100 + b"R."
"""A pickle whose text would never end, as each tuple holds the one before twice."""

FOUND: list[tuple[str, bytes]] = [
    ("schedule state", b'{"format": 2, "looked_utc": null, "did": null, "stale": [], "sentence": null, "next_utc": null,'
     b' "failure": {"utc": "-1", "why": ""}, "max_age_days": 30}'),
    ("plan", READERS["plan"].example().replace(b'"step": 8', b'"step": 1e999')),
    ("plan", b"[" * 100_000),
    ("table contents", READERS["table contents"].example().replace(b'"measurements"', b'"x"')
     .replace(b'"quiet_rounds": 6', b'"quiet_rounds": 0')),
    ("journal", b'{"event": "journal", "format": 6, "x": ' + b"9" * 5000 + b"}\n"),
    ("journal", b'{"event": "journal", "format": 4, "target": 1, "settings": {}}\n{"event": "hello"}\n'),
    ("journal", b'{"event": "journal", "format": 4}\n{"event": ["hello"]}\n'),
    ("runner lines", b'{"event": "measurement", "x": ' + b"9" * 5000 + b"}\n"),
    ("runner lines", b'{"event": "failed", "model": "a", "round": 0, "reason": "\\ud800"}\n'),
    ("runner lines", b'{"event": "crashed"}\n'),
    ("fake script", b"a = " + b"[" * 100_000),
    ("fake script", b"seed = " + b"9" * 5000),
    ("lock", b'{"pid": 1, "command": "x", "since_s": 1e300}'),
    ("lock", b'{"pid": 1, "command": "x", "since_s": NaN}'),
    ("lock", b"[" * 100_000),
    ("job", READERS["job"].example().replace(b'"reference_every": 12', b'"reference_every": [12]')),
    ("job", READERS["job"].example().replace(b'"reference_every": 12', b'"reference_every": 0.0')),
    ("job", UNKNOWN_NAMES),
    ("vendor tools", b"P50 Latency: - s\n"),
    ("vendor tools", b"P50 Latency: 1e999 s\n"),
    ("table contents", READERS["table contents"].example().replace(b'"files": {', b'"files": 3, "file": {')),
    ("cifar10 python", A_NUMBER_OF_BYTES),
    ("cifar10 python", NESTED_TUPLES),
    ("weights", b"\x80\x02h\x0c."),
    ("weights", b"\x80\x02]q\x00(0."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data"), FOUND, ids=[name for name, _ in FOUND])
def test_what_once_ended_in_a_traceback_is_taken_or_refused_in_a_sentence(name: str, data: bytes) -> None:
    met(name, data)


# ------------------------------------------------------------------------------------------------------ small and yet large

MEGABYTE = 1 << 20
MOST_MORE_BYTES = 256 * MEGABYTE


def refused_small(name: str, data: bytes) -> None:
    """In a process of its own, whose memory is then that of this file alone."""
    assert len(data) < MEGABYTE
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "data").write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", ALONE, name, folder, str(MOST_MORE_BYTES)], capture_output=True, text=True, timeout=60,
            cwd=Path(__file__).parent,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    more_bytes = int(done.stdout)
    assert more_bytes < MOST_MORE_BYTES, f"{name} took {more_bytes / MEGABYTE:.0f} MB"


ALONE = """
import resource, sys
from pathlib import Path
from readers import READERS, attempt

name, folder = sys.argv[1:3]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
attempt(READERS[name], READERS[name].example(), Path(folder))
before = peak()
attempt(READERS[name], Path(folder, "data").read_bytes(), Path(folder))
print(peak() - before)
"""


def parquet(rows: int, text: str) -> bytes:
    """A table whose rows all hold the same text, which is stored once."""
    metadata = pq.read_schema(io.BytesIO(READERS["table file"].example())).metadata
    numbers = [field for field in SCHEMA if not pa.types.is_string(field.type)]
    repeated = {field.name: pa.array(np.ones(rows, field.type.to_pandas_dtype())) for field in numbers}
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text])
    table = pa.table({**repeated, "layer": texts}).replace_schema_metadata(metadata)
    data = io.BytesIO()
    pq.write_table(table, data, compression="zstd", store_schema=False)
    return data.getvalue()


def npz_of_zeros(size_bytes: int, packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", packed) as archive:
        with archive.open("webp.npy", "w", force_zip64=True) as part:
            np.lib.format.write_array_header_1_0(part, {"descr": "|u1", "fortran_order": False, "shape": (size_bytes,)})
            for _ in range(size_bytes // MEGABYTE):
                part.write(bytes(MEGABYTE))
        for name in ("offset", "label", "is_test", "classes"):
            with archive.open(f"{name}.npy", "w") as part:
                np.lib.format.write_array(part, np.zeros(1, np.int64))
    return data.getvalue()


def npz_that_claims(size_bytes: int) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive, archive.open("webp.npy", "w") as part:
        np.lib.format.write_array_header_1_0(part, {"descr": "|u1", "fortran_order": False, "shape": (size_bytes,)})
    return data.getvalue()


def png_of(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("1", (width, height)).save(data, "PNG", optimize=True)
    return data.getvalue()


def aliases(depth: int) -> bytes:
    lines = ["a0: &a0 {mean: 1}", *(f"a{n}: &a{n} {{{', '.join(f'k{i}: *a{n - 1}' for i in range(9))}}}" for n in range(1, depth))]
    return "\n".join(lines).encode()


def onnx_that_fills(count: int) -> bytes:
    """A few bytes that stand for a tensor of so many numbers."""
    size = onnx.numpy_helper.from_array(np.array([count], np.int64), "size")
    nodes = [onnx.helper.make_node("ConstantOfShape", ["size"], ["big"]), onnx.helper.make_node("ReduceSum", ["big"], ["sum"]),
             onnx.helper.make_node("Add", ["x", "sum"], ["y"])]  # fmt: skip
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [size])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


LARGE = {
    "a table of millions of equal rows": ("table file", lambda: parquet(2_000_000, "x")),
    "a table of long texts, stored once": ("table file", lambda: parquet(10_000, "x" * 900_000)),
    "zeros by the gigabyte": ("cifar10 npz", lambda: npz_of_zeros(400 * MEGABYTE)),
    "an array that says it has terabytes": ("cifar10 npz", lambda: npz_that_claims(1 << 42)),
    "an image of fifty million pixels": ("image", lambda: png_of(10_000, 5_000)),
    "aliases of aliases": ("ofa", lambda: aliases(12)),
    "a tensor of a billion numbers": ("onnx", lambda: onnx_that_fills(10**9)),
    "lists in lists": ("table contents", lambda: b'{"info": ' + b"[" * 400_000 + b"]" * 400_000 + b', "rows": []}'),
    "keys by the ten thousand": ("nn-meter", lambda: json.dumps({str(n): {} for n in range(60_000)}).encode()),
    "a key that is half a megabyte": ("profile.toml", lambda: b"[tables." + b"x" * 500_000 + b"]\n"),
    "one name a hundred thousand levels deep": ("profile.toml", lambda: b"[" + b"a." * 100_000 + b"a]\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "make"), LARGE.values(), ids=LARGE)
def test_a_small_file_does_not_become_large_in_memory(name: str, make: Callable[[], bytes]) -> None:
    if READERS[name].needs and importlib.util.find_spec(READERS[name].needs) is None:
        pytest.skip(f"{name} needs {READERS[name].needs}; pip install it")
    refused_small(name, make())


# --------------------------------------------------------------------------------------------------------- paths and secrets


def test_a_model_whose_weights_lie_outside_of_its_folder_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(bytes(4))
    for place in ("../secret", str(tmp_path / "secret")):
        weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        weight.external_data.append(onnx.StringStringEntryProto(key="location", value=place))
        ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
        (inside / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        with pytest.raises(ModelError):
            read_model(inside / "model.onnx")


@pytest.mark.parametrize(
    "text",
    [
        'schedule = "{}"',
        '[schedule]\nwebhook = ["{}"]',
        '[schedule]\nwebhook = "ftp{}"',
        '[schedule]\ncommand = "{}"',
        '[schedule]\nwebhook = "{}',
        "[schedule]\nwebhook = {}",
        '[schedule.webhook]\naddress = "{}"',
        '[[schedule]]\nwebhook = "{}"',
        '[schedule]\nwebhook = "{}"\nwebhook = "{}"',
    ],
)
def test_no_mistake_in_the_file_shows_where_notifications_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The address of a webhook is a secret for most services."""
    wanted = '[tables.a]\ndevice = "local"\nplan = "p.json"\nruntime = "litert"\n'
    (tmp_path / "profile.toml").write_text(text.replace("{}", "://example.org/T0KEN") + "\n" + wanted)
    monkeypatch.setenv("PROFILE_CONFIG", str(tmp_path / "profile.toml"))
    with pytest.raises(ConfigError) as caught:
        read_schedule()
    assert "T0KEN" not in str(caught.value)


def test_a_schedule_can_be_printed_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PROFILE.replace("/hook", "/T0KEN").replace('"tables"]', '"T0KEN"]')
    (tmp_path / "profile.toml").write_text(text)
    monkeypatch.setenv("PROFILE_CONFIG", str(tmp_path / "profile.toml"))
    schedule = read_schedule()
    assert schedule.notifications.webhook == "https://example.org/T0KEN"
    assert "T0KEN" not in repr(schedule)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/T0KEN", "http://me:T0KEN@127.0.0.1:9/", "http://127.0.0.1:9/a?key=T0KEN"])
def test_a_webhook_that_fails_is_reported_without_its_secrets(address: str) -> None:
    (said,) = notify(NotificationSettings(webhook=address, command=()), {"table": "a"})
    assert "127.0.0.1" in said and "T0KEN" not in said


def test_what_a_device_says_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("device", "says"), [("a", "[/red] \x1b[2J[bold]x")])
    assert "[/red] ?[2J[bold]x" in capsys.readouterr().out


def test_an_error_is_one_line_however_long_its_cause_is() -> None:
    said = str(ToolError("it said \x1b[2J\r\n" + "x" * 100_000))
    assert said.startswith("it said ?[2J  xx") and len(said) < 2000


PICKLES = re.compile(
    r"^\s*(?:import|from) (?:c?[pP]ickle|marshal|shelve|dill|cloudpickle)\b(?!.*UnpicklingError)"
    r"|allow_pickle=True|weights_only=False|torch\.load\((?!.*weights_only=True)|np\.load\((?!.*allow_pickle=False)"
    r"|yaml\.(?:unsafe_load|full_load|load)\(|read_pickle|(?<![\w.])(?:eval|exec)\(",
    re.MULTILINE,
)


def test_nothing_that_is_read_can_run_code() -> None:
    root = Path(__file__).parents[1]
    files = [file for package in ("profiler", "device_agents", "netadapt") for file in (root / package).rglob("*.py")]
    assert len(files) > 100
    # one line is advice in an error message, for the user to run
    texts = [(file.name, file.read_text().replace(MAKES_A_STATE_DICT, "", 1)) for file in files]
    found = [f"{name}: {line[0]}" for name, text in texts for line in PICKLES.finditer(text)]
    assert not found
