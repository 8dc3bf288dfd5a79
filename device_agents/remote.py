"""What ssh and adb have in common: a POSIX shell at the other end, which runs commands, keeps our files and can kill.

Every command runs in a shell of ours that first prints its process id and start time, and at the end the exit code. The first
lets us kill the command and what it started; the second tells an ended command from a broken link, which neither ssh (255 for
both) nor an adb shell does reliably. A login shell may print anything before, between and after, with or without a newline: both
lines carry a random nonce and a word of their own, and are searched for anywhere in a line.
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
from device_agents.errors import CommandTimedOut, DeviceError, LineTooLong, LinkLost, StoreFailed

OUR_FOLDER = "netadapt-profiler"
KEEP_DAYS = 7
"""What nobody has asked for again within a week is removed from the device."""
PUSHES = 3
BUNDLE_BYTES = 64 << 20
BUNDLE_FILES = 250
"""Their names go into one shell line: adb's server takes 64 KiB of it, Linux 128."""
SLOWEST_BYTES_PER_S = 500_000
"""A push slower than this is taken for dead."""
COMMAND_S = 30.0
LINGER_S = 1.0
"""How long an ended command may keep its standard error open: a child that it left behind does for ever."""
MARK = "NETADAPT_PROFILER_COMMAND"
"""The environment variable by which what a command started is known to be ours: it holds the command's nonce."""


class Source(Enum):
    """Where bytes of a command come from."""

    OUT = 1
    ERR = 2
    END = 0


@dataclass(frozen=True, slots=True)
class RemoteProcess:
    """The shell that a command of ours runs in, on the device."""

    pid: int
    start_ticks: str
    """When the kernel started it: field 22 of /proc/PID/stat. A later process of that number has another. `?`: unreadable."""
    nonce: str
    """Random; stands in its command line, and in the environment of all that it starts."""

    def killing(self) -> str:
        """A shell line that kills it and what it started, and nothing else.

        The shell itself is killed if process id, start time and command line are still those of the command; after a restart of
        the device, or once it has ended, the number may be somebody else's. What it started carries the nonce in its environment.
        Processes are signalled one by one, so no group is ever signalled, and no number below 2. A command may start more while
        this runs, so it looks again until nothing is found.
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
        return f"{shell}; for i in 1 2 3 4 5; do found=; {started}; [ $found ] || break; done; echo"


class Channel(Protocol):
    """One shell command running at the other end."""

    def receive(self, timeout_s: float) -> tuple[Source, bytes]:
        """What comes next, (END, b"") at the end, however it ended. `TimeoutError` if nothing comes in time."""
        ...

    def send(self, data: bytes) -> None:
        """A few bytes to its standard input. If they do not arrive, `receive` will show why."""
        ...

    def close(self) -> None:
        """Let go of it; its standard input is closed by that. What it runs need not end."""
        ...


class RemoteAgent(ABC):
    """An agent but for how commands and bytes travel: a kind of device says that in four methods and its default folder."""

    shared = False
    has_conditions = True
    runner: str | None = None
    address_forms: tuple[str, ...] = ()
    default_folder: str
    """Shell text, so that it may name $HOME; our own folder goes into it."""

    def __init__(self, address: str, options: Options | None = None) -> None:
        self.address, self.options = address, options or Options()
        self._folder = ""
        self._python: str | None = None
        self._present: set[str] = set()
        self._orphans: set[RemoteProcess] = set()
        """Commands that were running when the link broke off: the device may go on with them for hours."""

    @classmethod
    def attached(cls) -> Sequence[Attached]:
        """None: a network is not searched for devices without being asked to."""
        return []

    @abstractmethod
    def _connect(self) -> None:
        """`DeviceUnreachable` or `DeviceUnauthorised` if that cannot be done now."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Never fails; may be called twice."""

    @abstractmethod
    def _open(self, line: str) -> Channel:
        """Let the device's shell run a line, standard input held open. `LinkLost` if the connection has broken off."""

    @abstractmethod
    def _upload(self, data: bytes, path: str, timeout_s: float) -> None:
        """Write a file. `LinkLost` if the connection breaks off, `StoreFailed` if the device refuses it."""

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
        """Make our folder, drop what is old in it, see what is left and which Python there is: one round trip."""
        parent = shlex.quote(self.options.folder) if self.options.folder else self.default_folder
        script = "; ".join(
            [
                f'folder={parent}/{OUR_FOLDER}; mkdir -p "$folder" && cd "$folder" && pwd || exit 1',
                f"find . -type f -mtime +{KEEP_DAYS} -exec rm -f {{}} + 2>/dev/null",
                "find . -name 'incoming-*' -mmin +60 -exec rm -rf {} + 2>/dev/null",
                "command -v python3 || command -v python || echo",
                "ls",
            ]
        )
        result = self.run(["sh", "-c", script], timeout_s=COMMAND_S)
        if result.returncode != 0:
            said = result.stderr.strip() or "it said nothing"
            raise StoreFailed(f"no folder for our files can be made on {self.address}: {said}; name another for it")
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
        channel = self._open(_shell(_wrapped(command, nonce)))
        running = RemoteStream(channel, nonce, self.address, named(argv))
        try:
            yield running
        finally:
            channel.close()
            if running.returncode is None and running.process is not None and not self._kill(running.process):
                self._orphans.add(running.process)

    def _kill(self, process: RemoteProcess) -> bool:
        """Kill a command and what it started; false if the device is out of reach for that now."""
        with contextlib.suppress(DeviceError, TimeoutError):
            channel = self._open(_shell(process.killing()))
            try:
                said = b""
                while (received := channel.receive(COMMAND_S))[0] is not Source.END:
                    said += received[1]
                return b"\n" in said
            finally:
                channel.close()
        return False

    # --------------------------------------------------------------------------------------------------------------- storing

    def store(self, files: Mapping[str, bytes]) -> str:
        missing = {name: data for name, data in files.items() if name not in self._present}
        damaged = ""
        for _ in range(PUSHES):
            for bundle in _bundles(missing):
                arrived, said = self._send(bundle)
                self._present |= arrived
                damaged = said or damaged
            missing = {name: data for name, data in missing.items() if name not in self._present}
            if not missing:
                return self._folder
        why = f"the device said: {damaged}" if damaged else "they arrived damaged"
        size_mb = sum(map(len, missing.values())) / 1e6
        raise StoreFailed(
            f"{len(missing)} files ({size_mb:.1f} MB) could not be put on {self.address} in {PUSHES} attempts, {why}; "
            f"`profile clean {self.address}` makes room"
        )

    def _send(self, files: Mapping[str, bytes]) -> tuple[set[str], str]:
        """One stream for all; the names of those that arrived whole, and what the device complained of."""
        incoming = f"{self._folder}/incoming-{secrets.token_hex(8)}"
        data = _tar(files)
        self._upload(data, f"{incoming}.tar", COMMAND_S + len(data) / SLOWEST_BYTES_PER_S)
        unpack = f"mkdir {incoming} && tar -xf {incoming}.tar -C {incoming}; rm -f {incoming}.tar; cd {incoming} && sha256sum *"
        result = self.run(["sh", "-c", unpack], timeout_s=COMMAND_S + len(data) / SLOWEST_BYTES_PER_S)
        arrived = {name for name, digest in _digests(result.stdout) if digest == _sha256(files.get(name, b""))} & files.keys()
        keep = f"mv -f {shlex.join(sorted(arrived))} .. && " if arrived else ""
        self.run(["sh", "-c", f"cd {incoming} && {keep}cd .. && rm -rf {incoming}"], timeout_s=COMMAND_S).check()
        said = result.stderr.strip().splitlines() if len(arrived) < len(files) else []
        return arrived, said[0] if said else ""

    def clean(self) -> int:
        result = self.run(["sh", "-c", f"du -sk {shlex.quote(self._folder)}; rm -rf {shlex.quote(self._folder)}"], timeout_s=120)
        self._prepare()
        kilobytes = result.check().stdout.split()[0]
        return int(kilobytes) * 1024 if kilobytes.isdigit() else 0


def _shell(script: str) -> str:
    """A line for a login shell of whatever kind. It holds no line feed, which tcsh does not take within quotes."""
    return f"exec sh -c {shlex.quote(script)}"


def _wrapped(command: str, nonce: str) -> str:
    """The command between the two lines that `RemoteStream` looks for: `NONCE began PID TICKS` and `NONCE ended CODE`.

    Where /proc/PID/stat cannot be read, the ticks are `?` and the shell will not be signalled.
    """
    return (
        f"{{ read -r s </proc/$$/stat; }} 2>/dev/null && set -- ${{s##*) }} || set --; "
        f"printf '\\n%s began %d %s\\n' {nonce} $$ \"${{20:-?}}\"; {MARK}={nonce}; export {MARK}; "
        f"{command}; printf '\\n%s ended %d\\n' {nonce} $?"
    )


class RemoteStream:
    """The lines of a command on a device, between the line that says it began and the one that says how it ended."""

    def __init__(self, channel: Channel, nonce: str, address: str, what: str) -> None:
        self._channel, self._nonce, self._address, self._what = channel, nonce, address, what
        self._began = re.compile(rb"%s began (\d{1,10}) (\d+|\?)\r?$" % nonce.encode())
        self._ended = re.compile(rb"%s ended (\d{1,3})\r?$" % nonce.encode())
        self._pending = bytearray()
        self._searched = 0
        """So many of the pending bytes hold no end of a line."""
        self._errors = b""
        self.silence_s = COMMAND_S
        self.process: RemoteProcess | None = None
        self.returncode: int | None = None

    @property
    def stderr(self) -> str:
        return self._errors.decode(errors="replace")

    def __iter__(self) -> Iterator[str]:
        """`CommandTimedOut` after `silence_s` without a line; `LinkLost` if the lines end before the command has.

        An empty line waits for the next one, for the last may be ours.
        """
        waiting = ""
        while (line := self._line(time.monotonic() + self.silence_s)) is not None:
            if waiting:
                yield waiting
            waiting = "\n" if line == b"\n" else ""
            if not waiting:
                yield line.decode(errors="replace")

    def tell(self, data: bytes) -> None:
        self._channel.send(data)

    def rest(self, deadline: float, timeout_s: float) -> str:
        """Everything until the command ends. `CommandTimedOut` at the deadline."""
        lines: list[bytes] = []
        try:
            while (line := self._line(deadline)) is not None:
                lines.append(line)
        except CommandTimedOut:
            raise CommandTimedOut(f"`{self._what}` did not end within {timeout_s:g} s on {self._address}; it was killed") from None
        return b"".join(lines).removesuffix(b"\n").decode(errors="replace")

    def ended(self) -> int:
        assert self.returncode is not None  # the lines have ended, and not by an error
        return self.returncode

    def _line(self, deadline: float) -> bytes | None:
        """The next line of the command's own; None once it has ended.

        A newline is written before the exit code, for the output may not end with one: the last line is then one too long.
        """
        if self.returncode is not None:
            return None
        while True:
            end = self._pending.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._pending)
                if self._searched > LONGEST_LINE:
                    raise LineTooLong(f"`{self._what}` wrote {LONGEST_LINE >> 20} MiB without ending the line; it was killed")
                self._receive(deadline)
                continue
            line = bytes(self._pending[:end])
            del self._pending[: end + 1]
            self._searched = 0
            if self.process is None:  # what comes before is the login shell's
                if began := self._began.search(line):
                    self.process = RemoteProcess(int(began[1]), began[2].decode(), self._nonce)
            elif ended := self._ended.search(line):
                number = int(ended[1])
                self.returncode = 128 - number if 128 < number <= 128 + max(signal.valid_signals()) else number
                self._linger()
                return None
            else:
                return line + b"\n"

    def _linger(self) -> None:
        """Take in what comes on standard error behind the exit code, for that comes on another way."""
        deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(TimeoutError):
            while (received := self._channel.receive(max(0.0, deadline - time.monotonic())))[0] is not Source.END:
                self._errors = (self._errors + (received[1] if received[0] is Source.ERR else b""))[-65536:]

    def _receive(self, deadline: float) -> None:
        try:
            source, data = self._channel.receive(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise CommandTimedOut(
                f"`{self._what}` said nothing for {self.silence_s:g} s on {self._address}; it was killed"
            ) from None
        match source:
            case Source.OUT:
                self._pending += data
            case Source.ERR:
                self._errors = (self._errors + data)[-65536:]
            case Source.END:
                said = self.stderr.strip().splitlines()[-1:]
                raise LinkLost(f"the connection to {self._address} broke off{': ' + said[0] if said else ''}")


def _bundles(files: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Parts that fit into memory, and into a timeout."""
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


def _digests(text: str) -> Iterator[tuple[str, str]]:
    """(name, digest) of each line of sha256sum."""
    for line in text.splitlines():
        digest, _, name = line.partition(" ")
        yield name.lstrip(" *"), digest


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
