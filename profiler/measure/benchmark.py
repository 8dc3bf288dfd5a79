"""The latency of whole model files, measured in one run, interleaved, so that they can be compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import ModelError
from profiler.formats.model_file import format_of
from profiler.measure.estimate import Estimate, Measurement, estimate
from profiler.measure.opening import open_session
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.settings import Target, TimingSettings


@dataclass(frozen=True, slots=True)
class Measured:
    """A model file's latency and the conditions it was measured under."""

    path: Path
    estimate: Estimate
    device: Mapping[str, Any]
    conditions: tuple[Mapping[str, Any], ...]
    """Load, clocks and temperature at the start of each round."""


def measure_files(
    paths: Sequence[Path],
    target: Target,
    *,
    settings: TimingSettings | None = None,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
) -> dict[Path, Measured]:
    """Measurement all files in shuffled rounds until each has settled or had its most rounds. `ModelError` if one cannot run."""
    settings, progress = settings or TimingSettings(measurement_ms=100.0, min_round_s=1.0), progress or Silent()
    models = {str(path): _file_for(path, target) for path in paths}
    measurements: dict[str, list[Measurement]] = {name: [] for name in models}
    hello: dict[str, Any] = {}
    conditions: list[dict[str, Any]] = []
    with open_session(target, settings, progress=progress, wait_s=wait_s) as session:
        rounds = range(settings.rounds)
        wide = sorted(models)
        while wide and rounds:
            progress.begin(f"measuring {len(wide)} model{'s' if len(wide) > 1 else ''}", len(wide) * len(rounds))
            for message in session.measure({name: models[name] for name in wide}, [(number, wide) for number in rounds]):
                match message["event"]:
                    case "hello":
                        hello = message
                    case "round":
                        conditions.append({name: value for name, value in message.items() if name not in ("event", "clock_ns")})
                    case "paused":
                        progress.say(f"{message['reason']}; going on as soon as it is possible")
                    case "failed":
                        raise ModelError(f"{message['model']} cannot be measured on {target.runtime}: {message['reason']}")
                    case "measurement":
                        seen = Measurement(
                            message["round"], message["loops"], tuple(message["samples_ns"]), tuple(message["switched"])
                        )
                        measurements[message["model"]].append(seen)
                        progress.advance(Path(message["model"]).name)
            wide = [name for name in wide if not estimate(measurements[name]).settled(settings)]
            rounds = range(rounds.stop, min(rounds.stop + settings.rounds // 2, settings.max_rounds))
    return {path: Measured(path, estimate(measurements[str(path)]), hello, tuple(conditions)) for path in paths}


def _file_for(path: Path, target: Target) -> bytes:
    file_format = format_of(path)
    if file_format.name != target.model_format:
        raise ModelError(f"{path} cannot run on {target.runtime}, which reads .{target.model_format} files")
    return path.read_bytes()
