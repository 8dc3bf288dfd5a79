"""What LiteRT executes, from the profiler of its compiled models, which has no interface in Python: by libLiteRt.so itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from device_agents.on_device.runner.executed import WARM_UP_RUNS, Inference, Ran
from device_agents.on_device.runner.inputs import Inputs

CPU, FOR_WRITING, LOG_ERRORS = 1, 1, 3
TAG_ACCELERATORS, TAG_LOG_SEVERITY, TYPE_WHOLE = 24, 25, 2
INFERENCE, OPERATOR, DELEGATE_OPERATORS = 1, 2, (4, 8)
UNTOUCHED = 0xA5
NEEDED = ("CreateModelFromFd", "CompiledModelGetProfiler", "GetProfilerEvents", "CreateManagedTensorBufferFromRequirements")
"""Older libraries lack one of these. Those without the first would take our first argument for a path."""
TYPES = {
    1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16", 11: "float64",
    13: "uint64", 16: "uint32", 17: "uint16",
}  # fmt: skip
"""numpy's names of the types of elements."""


class _Value(ctypes.Union):
    _fields_ = (("whole", ctypes.c_int64), ("pointer", ctypes.c_void_p))


class _Setting(ctypes.Structure):
    class _Any(ctypes.Structure):
        _fields_ = (("type", ctypes.c_int), ("value", _Value))

    _fields_ = (("tag", ctypes.c_int), ("any", _Any))


class _TensorType(ctypes.Structure):
    """The lowest seven bits of `rank` are the rank, the eighth says whether there are strides."""

    _fields_ = (
        ("element", ctypes.c_int),
        ("rank", ctypes.c_uint32),
        ("shape", ctypes.c_int32 * 8),
        ("strides", ctypes.c_uint32 * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("index", ctypes.c_int64),
        ("more", ctypes.c_int64),
        ("source", ctypes.c_int),
    )


class NotProfiled(Exception):
    """This LiteRT does not tell what it executes."""


class LiteRtProfiler:
    """Compiles models with the profiler on, and runs them."""

    def __init__(self, library: Path, threads: int) -> None:
        try:
            self._litert = ctypes.CDLL(str(library))
        except OSError as exc:
            raise NotProfiled(f"this LiteRT has no library with a profiler: {exc}") from exc
        missing = [name for name in NEEDED if not hasattr(self._litert, f"LiteRt{name}")]
        if missing:
            raise NotProfiled(f"this LiteRT has no profiler that is known: it lacks LiteRt{missing[0]}")
        log_errors = ((TAG_ACCELERATORS, CPU), (TAG_LOG_SEVERITY, LOG_ERRORS))
        settings = (_Setting * 2)(*(_Setting(tag, (TYPE_WHOLE, _Value(whole=value))) for tag, value in log_errors))
        self.environment = self._made("CreateEnvironment", 2, settings)
        self.options = self._made("CreateOptions")
        self._call("SetOptionsHardwareAccelerators", self.options, CPU)
        self._add_options(b"xnnpack", b"num_threads = %d\n" % threads)
        self._add_options(b"runtime_options_string", b"enable_profiling = true\n")

    def _call(self, name: str, *arguments: object) -> None:
        """NotProfiled if the function of LiteRT says that it failed."""
        status = getattr(self._litert, f"LiteRt{name}")(*arguments)
        if status:
            raise NotProfiled(f"LiteRt{name} failed with status {status}; see standard error")

    def _made(self, name: str, *arguments: object) -> ctypes.c_void_p:
        """What the function writes to the place that its last argument points to."""
        made = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(made))
        return made

    def _add_options(self, name: bytes, toml: bytes) -> None:
        """Add options in a text of our own memory, which LiteRT frees."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        text = ctypes.c_void_p(libc.strdup(toml))
        self._call("AddOpaqueOptions", self.options, self._made("CreateOpaqueOptions", name, text, libc.free))

    # ----------------------------------------------------------------------------------------------------------- a model

    def profile(self, path: Path, seed: int, inferences: int) -> list[Inference]:
        """So many inferences of a model, after a few to warm up. NotProfiled if it cannot be compiled or tells nothing."""
        with ExitStack() as owned:
            model = self._made("CreateModelFromFile", self.environment, str(path).encode())
            owned.callback(self._litert.LiteRtDestroyModel, model)
            compiled = self._made("CreateCompiledModel", self.environment, model, self.options)
            owned.callback(self._litert.LiteRtDestroyCompiledModel, compiled)
            signature = self._made("GetModelSignature", model, ctypes.c_size_t(0))
            buffers = {kind: self._buffers(owned, compiled, signature, kind) for kind in ("Input", "Output")}
            inputs = Inputs(path, seed)
            for place, (buffer, tensor_type) in enumerate(buffers["Input"]):
                self._fill(buffer, tensor_type, inputs, place)
            arguments: list[object] = [compiled, ctypes.c_size_t(0)]
            for made in buffers.values():
                handles = (ctypes.c_void_p * len(made))(*(buffer.value for buffer, _ in made))
                arguments += [ctypes.c_size_t(len(made)), handles]
            for _ in range(WARM_UP_RUNS):
                self._call("RunCompiledModel", *arguments)
            profiler = self._made("CompiledModelGetProfiler", compiled)
            found = []
            for _ in range(inferences):
                # events are taken after each inference, for some versions lose those that do not fit into the profiler's buffer
                with self._profiling(profiler):
                    self._call("RunCompiledModel", *arguments)
                found.append(inference_of(self._events(profiler)))
            return found

    def _buffers(
        self, owned: ExitStack, compiled: ctypes.c_void_p, signature: ctypes.c_void_p, kind: str
    ) -> list[tuple[ctypes.c_void_p, _TensorType]]:
        """A buffer for each input or output, as the compiled model requires it, and its type."""
        count = ctypes.c_size_t()
        self._call(f"GetNumSignature{kind}s", signature, ctypes.byref(count))
        buffers = []
        for place in map(ctypes.c_size_t, range(count.value)):
            tensor_type = _TensorType()
            tensor = self._made(f"GetSignature{kind}TensorByIndex", signature, place)
            self._call("GetRankedTensorType", tensor, ctypes.byref(tensor_type))
            required = self._made(f"GetCompiledModel{kind}BufferRequirements", compiled, ctypes.c_size_t(0), place)
            buffer = self._made("CreateManagedTensorBufferFromRequirements", self.environment, ctypes.byref(tensor_type), required)
            owned.callback(self._litert.LiteRtDestroyTensorBuffer, buffer)
            buffers.append((buffer, tensor_type))
        return buffers

    def _fill(self, buffer: ctypes.c_void_p, tensor_type: _TensorType, inputs: Inputs, place: int) -> None:
        if tensor_type.element not in TYPES:
            raise NotProfiled(f"input of LiteRT's type {tensor_type.element}")
        data = inputs.array(place, tensor_type.shape[: tensor_type.rank & 0x7F], TYPES[tensor_type.element]).tobytes()
        size = ctypes.c_size_t()
        self._call("GetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != len(data):
            raise NotProfiled("a buffer is not as large as its shape says")
        address = ctypes.c_void_p()
        self._call("LockTensorBuffer", buffer, ctypes.byref(address), FOR_WRITING)
        ctypes.memmove(address, data, len(data))
        self._call("UnlockTensorBuffer", buffer)

    @contextmanager
    def _profiling(self, profiler: ctypes.c_void_p) -> Iterator[None]:
        self._call("ResetProfiler", profiler)
        self._call("StartProfiler", profiler)
        yield
        self._call("StopProfiler", profiler)

    def _events(self, profiler: ctypes.c_void_p) -> list[_Event]:
        """The events since the profiler was reset. NotProfiled if they are laid out in another way than here."""
        count = ctypes.c_int()
        self._call("GetNumProfilerEvents", profiler, ctypes.byref(count))
        events, size = (_Event * (2 * count.value))(), ctypes.sizeof(_Event) * count.value
        ctypes.memset(events, UNTOUCHED, 2 * size)
        self._call("GetProfilerEvents", profiler, count, events)
        written = bytes(events)
        if written[size:].strip(bytes([UNTOUCHED])) or written[:size].endswith(bytes([UNTOUCHED] * 8)):
            raise NotProfiled("the profiler of this LiteRT tells events of another size than is known here")
        return list(events[: count.value])


def inference_of(events: list[_Event]) -> Inference:
    """NotProfiled if the inference itself is not among its events."""
    duration_us: int | None = None
    ran: list[Ran] = []
    delegates, last_index = 0, None
    for event in events:
        tag = (event.tag or b"").decode(errors="replace")
        if event.type == INFERENCE and tag == "Invoke" and duration_us is None:
            duration_us = event.elapsed_us
        elif event.type == OPERATOR:
            ran.append(Ran(tag, tag, "interpreter", event.index, event.elapsed_us))
            last_index = None
        elif event.type in DELEGATE_OPERATORS:
            if last_index is None or event.index <= last_index:  # each delegate counts its operators from 0
                delegates += 1
            ran.append(Ran(tag, tag, f"delegate {delegates - 1}", event.index, event.elapsed_us))
            last_index = event.index
    if duration_us is None:
        raise NotProfiled(f"the profiler of LiteRT has lost the inference among its {len(events)} events, or never seen it")
    return Inference(duration_us, ran)
