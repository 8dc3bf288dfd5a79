"""What ssh and adb have in common: a POSIX shell on the device, which runs commands, stores our files and can kill processes.

Every command runs in a shell of ours that first prints its process id and start time, and at the end the exit code. The first line
lets us kill the command and what it started. The second distinguishes a command that has ended from a lost connection, which
neither ssh (255 for both) nor an adb shell does reliably. A login shell may print anything around them, with or without a newline,
so both lines carry a random nonce and a word of their own, and are searched for anywhere in a line.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import secrets
import shlex
import signal
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from device_agents.agent import LONGEST_LINE, Attached, CommandResult, Options, named
from device_agents.errors import ANOTHER_FOLDER, CommandTimedOut, DeviceError, LineTooLong, LinkLost, StoreFailed, make_room
from device_agents.support.text import last_line, printable

OUR_FOLDER = "netadapt-profiler"
KEEP_DAYS = 7
"""Files that have not been stored again within a week are removed from the device."""
PUSHES = 3
"""Attempts at a file that arrives damaged."""
BUNDLE_BYTES = 64 << 20
BUNDLE_FILES = 250
"""Files of one push. Their names go into one shell line, of which adb's server accepts 64 KiB and Linux 128."""
SLOWEST_BYTES_PER_S = 500_000
"""A push slower than this counts as a lost connection."""
COMMAND_S = 30.0
LINGER_S = 1.0
"""How long to wait for the end of standard error once a command has ended: a child left behind may keep it open for ever."""
MARK = "NETADAPT_PROFILER_COMMAND"
"""The environment variable that identifies what a command of ours started: it holds the command's nonce."""


class Source(Enum):
    """Which output of a command bytes belong to; END: both have ended."""

    OUT = 1
    ERR = 2
    END = 0


@dataclass(frozen=True, slots=True)
class RemoteProcess:
    """The shell on the device in which a command of ours runs."""

    pid: int
    start_ticks: str
    """When the kernel started it: field 22 of /proc/PID/stat, which differs for a later process of the same id. `?`: unreadable."""
    nonce: str
    """Random; part of its command line, and of the environment of all that it starts."""

    def kill_script(self) -> str:
        """A shell line that kills it and what it started, and nothing else.

        The shell itself is killed if process id, start time and command line are still those of the command; after a restart of the
        device, or once the command has ended, the id may belong to another process. What the command started is found by the nonce
        in its environment. Processes are signalled one by one: never a process group, never an id below 2. Because a command may
        start more meanwhile, the search is repeated until it finds none.
        """
        stat, cmdline = f"/proc/{self.pid}/stat", f"/proc/{self.pid}/cmdline"
        shell = (
            f"[ {self.pid} -gt 1 ] && {{ read -r s <{stat}; }} 2>/dev/null && set -- ${{s##*) }} && "
            f'[ "${{20}}" = "{self.start_ticks}" ] && grep -q {self.nonce} {cmdline} 2>/dev/null && kill -9 {self.pid} 2>/dev/null'
        )
        started = (
            f"for f in $(grep -l {MARK}={self.nonce} /proc/[0-9]*/environ 2>/dev/null); do "
            "p=${f#/proc/}; p=${p%/environ}; [ $p -gt 1 ] && kill -9 $p 2>/dev/null && found=1; done"
        )
        return f"{shell}; for i in 1 2 3 4 5; do found=; {started}; [ $found ] || break; done; printf '%s killed\\n' {self.nonce}"


class Channel(Protocol):
    """One shell command that runs on the device."""

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        """The next output; (END, b"") at the end, however the command ended. `TimeoutError` if none comes in time."""
        ...

    def send(self, data: bytes) -> None:
        """Write a few bytes to its standard input. Never fails: if they do not arrive, `receive` will show why."""
        ...

    def close(self) -> None:
        """Close its pipes, standard input included. The command need not end by that."""
        ...


class RemoteAgent(ABC):
    """An agent for a device with a POSIX shell. A subclass adds how commands and bytes travel, in four methods."""

    shared = False
    has_conditions = True
    runner: str | None = None
    address_forms: tuple[str, ...] = ()
    default_folder: str
    """The folder in which ours is made, as shell text, so that it may contain $HOME."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        self.address, self.options = address, options or Options()
        self._folder = ""
        self._python: str | None = None
        self._present: set[str] = set()
        self._orphans: set[RemoteProcess] = set()
        """Commands that were running when the connection was lost. They may go on for hours, so `reconnect` kills them."""

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        """None: a network is not searched for devices without being asked to."""
        return []

    @abstractmethod
    def _connect(self) -> None:
        """Connect. `DeviceUnreachable` or `DeviceUnauthorised` if that is not possible now."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close the connection. Never fails; may be called twice."""

    @abstractmethod
    def _open(self, line: str) -> Channel:
        """Let the device's shell run a line, with its standard input held open. `LinkLost` if the connection is lost."""

    @abstractmethod
    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        """Write a file on the device. `LinkLost` if the connection is lost or that takes longer than `timeout_s` seconds,
        `StoreFailed` if the device refuses it."""

    # ------------------------------------------------------------------------------------------------------------ connecting

    def __enter__(self) -> Self:
        self._connect()
        try:
            self._prepare()
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._disconnect()

    def reconnect(self) -> None:
        self._disconnect()
        self._connect()
        self._orphans = {process for process in self._orphans if not self._kill(process)}
        self._prepare()

    def _prepare(self) -> None:
        """Make our folder, remove old files from it, list the others and find a Python interpreter: one round trip."""
        named, below = self.options.folder, (self.options.folder or "").removeprefix("~/")
        parent = self.default_folder if named is None else shlex.quote(named) if below == named else f"$HOME/{shlex.quote(below)}"
        script = "; ".join(
            [
                # a CDPATH lets `cd` print the folder of a relative path
                f'folder={parent}/{OUR_FOLDER}; mkdir -p -- "$folder" && cd -- "$folder" >/dev/null && pwd || exit 1',
                f"find . -type f -mtime +{KEEP_DAYS} -exec rm -f {{}} + 2>/dev/null",
                "find . -name 'incoming-*' -mmin +60 -exec rm -rf {} + 2>/dev/null",
                "command -v python3 || command -v python || echo",
                "ls",
            ]
        )
        result = self.run(["sh", "-c", script], timeout_s=COMMAND_S)
        if result.returncode != 0:
            why = last_line(result.stderr)
            raise StoreFailed(f"no folder for our files can be made on {self.address}: {why}; {ANOTHER_FOLDER}")
        self._folder, python, *names = [*result.stdout.splitlines(), ""]
        self._python, self._present = python or None, {name for name in names if name}

    def interpreter(self) -> str:
        if self._python is None:
            raise DeviceError(f"there is no Python on {self.address}; use the native runner, or name an interpreter")
        return self._python

    # --------------------------------------------------------------------------------------------------------------- running

    def run(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        command = f"{shlex.join(argv)} </dev/null"
        with self._running(command, argv) as running:
            stdout = running.rest(time.monotonic() + timeout_s, timeout_s)
            return CommandResult(tuple(argv), running.ended(), stdout, running.stderr)

    @contextmanager
    def stream(self, argv: Sequence[str], *, silence_s: float) -> Iterator[RemoteStream]:
        with self._running(shlex.join(argv), argv) as running:
            running.silence_s = silence_s
            yield running

    @contextmanager
    def _running(self, command: str, argv: Sequence[str]) -> Iterator[RemoteStream]:
        nonce = secrets.token_hex(8)
        channel = self._open(shell_line(_wrapped(command, nonce)))
        running = RemoteStream(channel, nonce, self.address, named(argv))
        try:
            yield running
        finally:
            channel.close()
            if running.returncode is None and running.process is not None and not self._kill(running.process):
                self._orphans.add(running.process)

    def _kill(self, process: RemoteProcess) -> bool:
        """Kill a command and what it started; false if the device cannot be reached for that now."""
        with contextlib.suppress(DeviceError, TimeoutError):
            channel = self._open(shell_line(process.kill_script()))
            try:
                output = b""
                while (received := channel.receive(COMMAND_S))[0] is not Source.END:
                    output += received[1]
                return f"{process.nonce} killed".encode() in output  # which the script prints at its end
            finally:
                channel.close()
        return False

    # --------------------------------------------------------------------------------------------------------------- storing

    def store(self, files: Mapping[str, bytes]) -> str:
        missing = {name: data for name, data in files.items() if name not in self._present}
        damaged = ""
        for _ in range(PUSHES):
            for bundle in _bundles(missing):
                arrived, complaint = self._send(bundle)
                self._present |= arrived
                damaged = complaint or damaged
            missing = {name: data for name, data in missing.items() if name not in self._present}
            if not missing:
                return self._folder
        why = f"the device printed: {damaged}" if damaged else "they arrived damaged"
        size_mb = sum(map(len, missing.values())) / 1e6
        raise StoreFailed(
            f"{len(missing)} files ({size_mb:.1f} MB) could not be put on {self.address} in {PUSHES} attempts, {why}; "
            f"{make_room(self.address)}"
        )

    def _send(self, files: Mapping[str, bytes]) -> tuple[set[str], str]:
        """Send files as one tar archive. Returns the names of those that arrived whole, and the device's first complaint."""
        path = f"{self._folder}/incoming-{secrets.token_hex(8)}"
        incoming, data = shlex.quote(path), _tar(files)
        timeout_s = COMMAND_S + len(data) / SLOWEST_BYTES_PER_S
        self._upload(data, f"{path}.tar", timeout_s)
        # into a folder of its own: what stands in ours is taken for whole
        unpack = f"mkdir {incoming} && tar -xf {incoming}.tar -C {incoming}; rm -f {incoming}.tar; cd {incoming} && sha256sum *"
        result = self.run(["sh", "-c", unpack], timeout_s=timeout_s)
        wanted = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        lines = (line.partition(" ") for line in result.stdout.splitlines())
        found = {name.lstrip(" *"): digest for digest, _, name in lines}  # `*` marks what was read as binary
        arrived = {name for name, digest in wanted.items() if found.get(name) == digest}
        keep = f"cd {incoming} && mv -f {shlex.join(sorted(arrived))} .. && cd .. && " if arrived else ""
        self.run(["sh", "-c", f"{keep}rm -rf {incoming}"], timeout_s=COMMAND_S).check()
        complaints = result.stderr.strip().splitlines() if len(arrived) < len(files) else []
        return arrived, complaints[0] if complaints else ""

    def clean(self) -> int:
        result = self.run(["sh", "-c", f"du -sk {shlex.quote(self._folder)}; rm -rf {shlex.quote(self._folder)}"], timeout_s=120)
        self._prepare()
        kilobytes = result.check().stdout.split()[0]
        return int(kilobytes) * 1024 if kilobytes.isdigit() else 0


def shell_line(script: str) -> str:
    """A line for a login shell of any kind that lets `sh` run a script.

    It has a command and words in single quotes only, and in these nothing that any shell does not take as it stands: no line feed
    and no `!` (tcsh), no backslash before a backslash or a quote (fish), no quote (rc). `printf` puts such bytes back.
    """
    words = "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\\'!" else f"\\0{byte:03o}" for byte in script.encode())
    return f"""exec sh -c 'eval "$(printf %b "$1")"' sh '{words}'"""


def _wrapped(command: str, nonce: str) -> str:
    """A script that prints `NONCE began PID TICKS`, runs the command and prints `NONCE ended CODE`, as `RemoteStream` expects.

    Where /proc/PID/stat cannot be read, the ticks are `?`, and the shell will not be signalled.
    """
    return (
        f"{{ read -r s </proc/$$/stat; }} 2>/dev/null && set -- ${{s##*) }} || set --; "
        f"printf '\\n%s began %d %s\\n' {nonce} $$ \"${{20:-?}}\"; {MARK}={nonce}; export {MARK}; "
        f"{command}; printf '\\n%s ended %d\\n' {nonce} $?"
    )


class RemoteStream:
    """The lines of a command on a device: those between the two of `_wrapped`."""

    def __init__(self, channel: Channel, nonce: str, address: str, what: str) -> None:
        self._channel, self._nonce, self._address, self._what = channel, nonce, address, what
        self._greeting = b""  # the last line of the login shell, which may say why it runs nothing
        self._began = re.compile(rb"%s began (\d{1,10}) (\d+|\?)\r?$" % nonce.encode())
        self._ended = re.compile(rb"%s ended (\d{1,3})\r?$" % nonce.encode())
        self._pending = bytearray()
        self._searched = 0
        """This many of the pending bytes are known to contain no end of a line."""
        self._errors = b""
        self.silence_s = COMMAND_S
        self.process: RemoteProcess | None = None
        self.returncode: int | None = None

    @property
    def stderr(self) -> str:
        return self._errors.decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        """`CommandTimedOut` after `silence_s` seconds without a line; `LinkLost` if the lines end before the command has."""
        waiting = ""  # an empty line is held back until the next one comes: the last is not the command's (see `_line`)
        while (line := self._line(time.monotonic() + self.silence_s)) is not None:
            if waiting:
                yield waiting
            waiting = "\n" if line == b"\n" else ""
            if not waiting:
                yield line.decode(errors="replace")

    def tell(self, data: bytes) -> None:
        self._channel.send(data)

    def rest(self, deadline: float, timeout_s: float) -> str:
        """The whole output, once the command has ended. `CommandTimedOut` at the deadline, which is `timeout_s` after its start."""
        lines: list[bytes] = []
        try:
            while (line := self._line(deadline)) is not None:
                lines.append(line)
        except CommandTimedOut:
            raise CommandTimedOut(f"`{self._what}` did not end within {timeout_s:g} s on {self._address}; it was killed") from None
        return b"".join(lines).removesuffix(b"\n").decode(errors="replace")

    def ended(self) -> int:
        assert self.returncode is not None  # the lines have ended, and no error was raised
        return self.returncode

    def _line(self, deadline: float) -> bytes | None:
        """The next line that the command printed; None once it has ended.

        The line with the exit code begins with a newline, because the output may not end with one. If it does, the last line that
        this returns is an empty one which the command did not print.
        """
        if self.returncode is not None:
            return None
        while True:
            end = self._pending.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._pending)
                if self._searched > LONGEST_LINE:
                    raise LineTooLong(f"`{self._what}` printed {LONGEST_LINE >> 20} MiB without ending the line; it was killed")
                self._receive(deadline)
                continue
            line = bytes(self._pending[:end])
            del self._pending[: end + 1]
            self._searched = 0
            if self.process is None:  # lines before the first of ours are the login shell's
                if began := self._began.search(line):
                    self.process = RemoteProcess(int(began[1]), began[2].decode(), self._nonce)
                elif line.strip():
                    self._greeting = line
            elif ended := self._ended.search(line):
                number = int(ended[1])
                self.returncode = 128 - number if 128 < number <= 128 + max(signal.valid_signals()) else number
                self._linger()
                return None
            else:
                return line + b"\n"

    def _linger(self) -> None:
        """Receive what is left of standard error, which may arrive after the exit code because it travels separately."""
        deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(TimeoutError):
            while (received := self._channel.receive(max(0.0, deadline - time.monotonic())))[0] is not Source.END:
                self._errors = (self._errors + (received[1] if received[0] is Source.ERR else b""))[-65536:]

    def _receive(self, deadline: float) -> None:
        try:
            source, data = self._channel.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise CommandTimedOut(
                f"`{self._what}` printed nothing for {self.silence_s:g} s on {self._address}; it was killed"
            ) from None
        match source:
            case Source.OUT:
                self._pending += data
            case Source.ERR:
                self._errors = (self._errors + data)[-65536:]
            case Source.END:
                why = f": {last_line(self.stderr)}" if self.stderr.strip() else ""
                if self.process is None:
                    said = bytes(self._pending).strip() or self._greeting
                    why = why or (f": {printable(last_line(said.decode(errors='replace')), 200)}" if said else "")
                    why += "; if it was not, the login shell there has to be one that runs commands, such as /bin/sh"
                raise LinkLost(f"the connection to {self._address} was lost{why}")


def _bundles(files: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """The files in parts that fit into memory, into a shell line and into a timeout."""
    bundle: dict[str, bytes] = {}
    size = 0
    for name, data in files.items():
        if bundle and (size + len(data) > BUNDLE_BYTES or len(bundle) == BUNDLE_FILES):
            yield bundle
            bundle, size = {}, 0
        bundle[name] = data
        size += len(data)
    if bundle:
        yield bundle


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o755, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
