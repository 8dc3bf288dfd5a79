"""The latency of whole model files, measured in one run, interleaved, so that they can be compared with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler.errors import ModelError
from profiler.formats.given import NOTHING, Given
from profiler.formats.model_file import format_for
from profiler.interval import Interval
from profiler.layers.layer import conv2d
from profiler.measure.disturbance import ENOUGH_REFERENCES, lower_tenth
from profiler.measure.estimate import Estimate
from profiler.measure.loop import MeasurementRun, Model, few_models
from profiler.measure.opening import open_session
from profiler.progress import ProgressReporter, Silent
from profiler.protocol.events import Hello, Round
from profiler.protocol.job import Loading
from profiler.protocol.settings import Target, TimingSettings

REFERENCE = conv2d((1, 28, 28, 64), 64, 3)
"""The reference layer where no layers are measured: 29 million multiply-accumulates."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A model file's latency and the conditions it was measured under."""

    path: Path
    estimate: Estimate
    hello: Hello
    """What it was measured on."""
    rounds: Sequence[Round]
    """Load, clocks and temperature at the start of each round."""
    reference_ms: float | None
    """The latency of the reference layer meanwhile, by which measurements of different hours can be compared; None where it was
    measured too rarely to tell."""

    @property
    def latency_ms(self) -> Interval:
        return self.estimate.latency_ms


def measure_files(
    paths: Sequence[Path],
    target: Target,
    given: Given = NOTHING,
    *,
    settings: TimingSettings | None = None,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
) -> Mapping[Path, Measured]:
    """Measure all files as a build measures whole networks, until each has settled or had its most rounds.

    `settings` are those of the table that the files are held against, if there is one. `ModelError` if a file cannot run.
    """
    measured = {}
    for path, found in measure_each(paths, target, given, settings=settings, progress=progress, wait_s=wait_s).items():
        if isinstance(found, ModelError):
            raise found
        measured[path] = found
    return measured


def measure_each(
    paths: Sequence[Path],
    target: Target,
    given: Given = NOTHING,
    *,
    settings: TimingSettings | None = None,
    progress: ProgressReporter | None = None,
    wait_s: float = 0.0,
) -> Mapping[Path, Measured | ModelError]:
    """The same for files of which some may not run: these have an error instead of a latency."""
    progress = progress or Silent()
    settings = few_models(settings or TimingSettings())
    results: dict[Path, Measured | ModelError] = {}
    files: dict[str, bytes] = {}
    for path in paths:
        try:
            file_format = format_for(path, target.runtime, target.model_format)
            files[str(path)] = file_format.complete(path, given)
            if remark := file_format.remark(path):
                progress.say(remark)
        except ModelError as exc:
            results[path] = exc
    if not files:
        return results
    with open_session(target, settings, progress=progress, wait_s=wait_s) as session:
        run = MeasurementRun(session, progress, reference=REFERENCE)
        # a mask of minus infinity, or the logarithm of a random number, is the network's own: its latency is that of any input
        names = run.add(Model(key, file, None, Loading(finite=False)) for key, file in files.items())
        run.measure(dict.fromkeys(names, settings.network_rounds), "measuring")
        if run.not_finite:
            inputs = "these inputs" if given.values else "random inputs; --input gives others"
            progress.say(f"the outputs of {', '.join(sorted(run.not_finite))} are not finite for {inputs}")
        run.settle(dict.fromkeys(names, 2 * settings.network_rounds))
    state = run.state
    found = state.estimates(names)
    references = state.references_ms
    reference_ms = lower_tenth(references) if len(references) >= ENOUGH_REFERENCES else None
    for path in paths:
        name = str(path)
        if name in state.failed:
            why = state.failed[name]
            if not given.values and ("in execution" in why or "while running" in why):
                why += "; its inputs were random, --input NAME=FILE.npy gives others"
            results[path] = ModelError(f"{name} cannot be measured on {target.runtime}: {why}")
        elif path not in results:
            assert state.hello is not None  # no measurement without one
            results[path] = Measured(path, found[name], state.hello, tuple(state.rounds), reference_ms)
    return {path: results[path] for path in paths}
