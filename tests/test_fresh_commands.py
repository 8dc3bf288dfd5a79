"""`profile schedule` and `profile compare` as a user has them: two of them at once, signals, secrets, systemd and cron."""

from __future__ import annotations

import getpass
import http.server
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphs import mobilenet_v1
from test_table import table
from typer.testing import CliRunner, Result

from profiler.cli.app import app
from profiler.formats.model_file import FORMATS
from profiler.protocol.events import Measurement
from profiler.protocol.journal import read_journal
from profiler.schedule import install
from profiler.schedule.config import NotificationSettings
from profiler.schedule.notify import notify
from profiler.schedule.state import stale_reason
from profiler.tables.plan import make_plan, write_plan
from profiler.tables.table import load_table

SCRIPT = 'seed = 1\n[runtimes]\nlitert = "2.3.0"\n[latency]\nbase_us = 20\nus_per_kilobyte = 20\nnoise_percent = 1\n'
NETWORK = mobilenet_v1(0.25, 32, classes=10, pairs=2)
PROFILE = [sys.executable, "-c", "from profiler.cli.app import app; app()"]


def run(*arguments: object, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **more)


def run_json(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file that wants one table of a simulated device."""
    monkeypatch.chdir(tmp_path)
    write_wish(tmp_path)
    return tmp_path


def write_wish(folder: Path) -> None:
    write_plan(make_plan(NETWORK), folder / "plan.json")
    (folder / "script.toml").write_text(SCRIPT)
    (folder / "profile.toml").write_text(
        '[devices.phone]\naddress = "fake:script.toml"\n'
        '[tables.small]\ndevice = "phone"\nplan = "plan.json"\nruntime = "litert"\nrounds = 3\nmax_layers = 1\n'
        'max_held_out_error = "60%"\n'
    )


@pytest.fixture(scope="module")
def fresh_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder once `schedule once` has built the table; nothing in it says where it lies."""
    folder = tmp_path_factory.mktemp("fresh")
    write_wish(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("schedule", "once").exit_code == 0
    return folder


@pytest.fixture
def fresh_lab(lab: Path, fresh_folder: Path) -> Path:
    """The same folder, with the table in it."""
    shutil.copytree(fresh_folder, lab, dirs_exist_ok=True)
    return lab


def test_once_builds_a_missing_table_and_status_shows_it_as_fresh(lab: Path) -> None:
    (before,) = run_json("schedule", "status")
    assert (before["age_days"], before["stale"]) == (None, ["no table yet"])
    assert run("schedule", "once").exit_code == 0
    (after,) = run_json("schedule", "status")
    assert after["age_days"] < 1
    assert after["stale"] == []
    assert after["next_utc"] > before["next_utc"]
    assert "no table is due" in run("schedule", "once").output
    assert run_json("schedule", "status", "--check")[0]["stale"] == []
    assert "fresh" in run("schedule", "status").output


def test_what_a_check_of_the_device_finds_is_recorded(fresh_lab: Path) -> None:
    (fresh_lab / "script.toml").write_text(SCRIPT.replace("2.3.0", "2.4.0"))
    (asked,) = run_json("schedule", "status", "--check")
    assert asked["stale"] and run_json("schedule", "status")[0]["stale"] == asked["stale"]
    assert stale_reason(Path(asked["file"]), load_table(Path(asked["file"]))) == "; ".join(asked["stale"])
    (fresh_lab / "script.toml").write_text(SCRIPT)
    assert run_json("schedule", "status", "--check")[0]["stale"] == run_json("schedule", "status")[0]["stale"] == []


def test_a_failure_sets_the_exit_code_and_status_shows_its_cause(lab: Path) -> None:
    (lab / "plan.json").unlink()
    result = run("schedule", "once")
    assert result.exit_code == 1
    assert "plan.json" in run("schedule", "status").output
    assert "plan.json" in run_json("schedule", "status")[0]["last_failure"]["why"]


def test_a_failed_table_is_not_due_at_once_but_the_message_says_how_to_check_it_again(lab: Path) -> None:
    (lab / "plan.json").rename(lab / "mended.json")
    assert run("schedule", "once").exit_code == 1
    (lab / "mended.json").rename(lab / "plan.json")
    assert "small failed at the last check" in run("schedule", "once").output
    assert run("schedule", "once", "--now").exit_code == 0
    assert "failed" not in run("schedule", "once").output


def test_a_second_scheduler_names_the_first(fresh_lab: Path) -> None:
    other = fresh_lab / "other.py"
    other.write_text(
        "import sys, pathlib\nfrom profiler.schedule.running import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path('profile.toml')):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, str(other)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdin is not None
        assert first.stdout.readline() == "locked\n"
        result = run("schedule", "once")
        assert result.exit_code == 1
        assert f"pid {first.pid}" in result.stderr
        first.stdin.close()
    assert run("schedule", "once").exit_code == 0


def test_the_lock_of_one_that_was_killed_is_free(fresh_lab: Path) -> None:
    with _started(fresh_lab) as first:
        first.kill()
    assert run("schedule", "once").exit_code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_waiting_scheduler_cleanly(fresh_lab: Path, number: signal.Signals) -> None:
    with _started(fresh_lab) as first:
        time.sleep(0.5)  # it has nothing to do but wait
        first.send_signal(number)
        out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err
    assert "ended; all measurements are kept" in out
    assert "Traceback" not in err


def _started(lab: Path) -> subprocess.Popen[str]:
    """A scheduler that stays, after it has said what comes next."""
    process = subprocess.Popen(
        [*PROFILE, "schedule", "run"], cwd=lab, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    assert "tables: 1; next check: " in process.stdout.readline()
    return process


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_build_that_was_ended_is_resumed_and_nothing_is_measured_twice(lab: Path, number: signal.Signals) -> None:
    (lab / "profile.toml").write_text(
        '[tables.mine]\ndevice = "local"\nplan = "plan.json"\nruntime = "fake"\nrounds = 3\nmax_layers = 1\n'
        'max_held_out_error = "100%"\n'
    )
    journal = lab / "mine.new.journal.jsonl"
    with subprocess.Popen([*PROFILE, "schedule", "once"], cwd=lab, text=True, stderr=subprocess.PIPE) as first:
        while first.poll() is None and not (journal.exists() and journal.read_text().count('"measurement"') >= 20):
            time.sleep(0.05)
        first.send_signal(number)
        _, err = first.communicate(timeout=60)
    assert "Traceback" not in err
    assert run_json("schedule", "status")[0]["interrupted"]
    before = measurements(journal)
    result = run("schedule", "once")
    assert "its last build was interrupted" in result.output, result.output + result.stderr
    (kept,) = [lab / "mine.journal.jsonl"] if result.exit_code == 0 else (lab / "history").glob("*.failed.journal.jsonl")
    after = measurements(kept)
    assert after[: len(before)] == before
    assert len(after) == len(set(after))


def measurements(journal: Path) -> list[tuple[str, int]]:
    return [(event.model, event.round) for event in read_journal(journal) if isinstance(event, Measurement)]


def test_a_stale_table_is_warned_of_in_one_line_and_netadapts_question_has_an_answer(lab: Path) -> None:
    model = lab / "network.tflite"
    model.write_bytes(FORMATS["tflite"].write(NETWORK))
    table(NETWORK).save(lab / "t.parquet")  # of January
    result = run("predict", "t.parquet", model)
    assert result.exit_code == 0
    (line,) = [line for line in result.stderr.splitlines() if "stale" in line]
    assert "days old" in line
    assert "days old" in json.loads(run("predict", "t.parquet", model, "--json").stdout)["stale"]


def test_compare_lists_the_layers_that_changed(lab: Path) -> None:
    build = ("build", "plan.json", "--device", "phone", "--runtime", "litert", "--rounds", 6, "--max-layers", 1)
    run_json(*build, "--out", "before.parquet")
    same = run_json("compare", "before.parquet", "before.parquet")
    assert (same["changed"], same["same_device"]) == (0, True)
    (lab / "script.toml").write_text(SCRIPT.replace("us_per_kilobyte = 20", "us_per_kilobyte = 30"))
    run_json(*build, "--out", "after.parquet")
    found = run_json("compare", "before.parquet", "after.parquet")
    assert found["changed"] > 0.5 * found["shared"]
    assert 1.0 < found["median_ratio"] < 1.6
    assert found["networks_percent"] > 10
    assert not found["same_device"]  # a simulated device is what its script says
    output = run("compare", "before.parquet", "after.parquet").output
    assert "not one that has changed" in output
    assert "more; --json has them all" in output
    assert "false discoveries below 5 %" in output


# ---------------------------------------------------------------------------------------------------------------- settings


class Hook(http.server.BaseHTTPRequestHandler):
    heard: list[Any]
    status = 200

    def do_POST(self) -> None:
        type(self).heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.heard, Hook.status = [], 200
    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/T0KEN?key=T0KEN"
        server.shutdown()
        thread.join()


def test_a_webhook_gets_the_notification_as_json(hook: str) -> None:
    assert notify(NotificationSettings(hook), {"table": "x"}) == []
    assert Hook.heard == [{"table": "x"}]


def test_a_webhook_that_refuses_is_reported_without_its_secret(hook: str) -> None:
    Hook.status = 403
    (said,) = notify(NotificationSettings(hook), {})
    assert "403" in said
    assert "T0KEN" not in said


@pytest.mark.parametrize(
    "settings",
    [
        NotificationSettings("http://127.0.0.1:1/T0KEN"),
        NotificationSettings("http://localhost:1/T0KEN\x7f"),
        NotificationSettings("http://T0KEN@:70000/"),
        NotificationSettings(command=("/nowhere/tell", "T0KEN")),
        NotificationSettings(command=("false", "T0KEN")),
    ],
)
def test_a_notification_that_fails_raises_nothing(settings: NotificationSettings) -> None:
    (said,) = notify(settings, {})
    assert "T0KEN" not in said


def test_a_webhook_is_notified_of_a_table_that_was_built(lab: Path, hook: str) -> None:
    (lab / "profile.toml").write_text((lab / "profile.toml").read_text() + f'[schedule]\nwebhook = "{hook}"\n')
    result = run("schedule", "once")
    (news,) = Hook.heard
    assert (news["table"], news["did"]) == ("small", "rebuilt")
    assert "held-out networks" in news["sentence"]
    everything = result.output + "".join(path.read_text(errors="ignore") for path in lab.glob("small.*"))
    assert "T0KEN" not in everything


# ---------------------------------------------------------------------------------------------------------------- install


@pytest.fixture
def programs(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl and a crontab that write down what they are asked."""
    folder = lab / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {lab}/asked\n')
    (folder / "loginctl").write_text("#!/bin/sh\necho Linger=yes\n")
    (folder / "crontab").write_text(
        f'#!/bin/sh\nif [ "$1" = -l ]; then cat {lab}/crontab 2>/dev/null || {{ echo "no crontab for you" >&2; exit 1; }}\n'
        f"else cat > {lab}/crontab; fi\n"
    )
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(lab / "config"))
    return folder


def test_nothing_is_installed_without_a_yes(programs: Path, lab: Path) -> None:
    result = run("schedule", "install", "--systemd", input="n\n")
    assert "ExecStart=" in result.output
    assert "nothing was written" in result.output
    assert not (lab / "config").exists()


def test_systemd_gets_a_unit_and_a_timer_that_it_understands(programs: Path, lab: Path) -> None:
    result = run("schedule", "install", "--yes")
    assert result.exit_code == 0, result.output
    units = sorted((lab / "config/systemd/user").iterdir())
    assert [path.name for path in units] == ["netadapt-profiler.service", "netadapt-profiler.timer"]
    assert "linger" not in result.output
    assert (
        lab / "asked"
    ).read_text() == "--user show-environment\n--user daemon-reload\n--user enable --now netadapt-profiler.timer\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze; on Debian: apt install systemd")
def test_systemd_itself_finds_no_fault_with_them(programs: Path, lab: Path) -> None:
    odd = lab / "a 100% $odd folder"
    odd.mkdir()
    (odd / "profile.toml").write_text((lab / "profile.toml").read_text())
    for unit in install.systemd_units(odd / "profile.toml"):
        (odd / unit.path.name).write_text(unit.text)
    verified = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(odd / "netadapt-profiler.service"), str(odd / "netadapt-profiler.timer")],
        capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(lab)}, check=False,
    )  # fmt: skip
    if "Failed to initialize manager" in verified.stderr:
        pytest.skip("systemd-analyze cannot run here")
    assert "netadapt" not in verified.stderr


def test_crontab_keeps_its_other_lines_and_gets_ours_once(programs: Path, lab: Path) -> None:
    (lab / "crontab").write_text("0 1 * * * other\n")
    for _ in range(2):
        assert run("schedule", "install", "--cron", "--yes").exit_code == 0
    first, mark, line = (lab / "crontab").read_text().splitlines()
    assert (first, mark) == ("0 1 * * * other", install.MARK)
    assert line.startswith("*/15 * * * * cd ")
    assert line.endswith("schedule once")


@pytest.mark.parametrize("written", ["\\%", "%"], ids=["BusyBox", "others"])
def test_the_cron_line_is_a_command_that_shells_understand(programs: Path, lab: Path, written: str) -> None:
    odd = lab / "it's 100% odd"
    odd.mkdir()
    (odd / "profile.toml").write_text("")
    line = install.cron_line(odd / "profile.toml").replace("\\%", written)  # as cron does
    command = line.removeprefix("*/15 * * * * ").replace("&& ", "&& printf '%s\\n' ", 1)
    out = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[1:] == ["--config", str(odd / "profile.toml"), "schedule", "once"]


@pytest.mark.parametrize(
    "said",
    [
        "echo Linger=no",
        "echo 'Failed to get user: User ID 1000 is not logged in or lingering' >&2; exit 1",
        "echo 'System has not been booted with systemd as init system (PID 1). Cannot operate.' >&2; exit 1",
    ],
)
def test_a_timer_that_ends_with_the_login_says_how_to_let_it_run_always(programs: Path, said: str) -> None:
    (programs / "loginctl").write_text(f"#!/bin/sh\n{said}\n")
    result = run("schedule", "install", "--yes")
    assert result.exit_code == 0, result.output
    assert f"runs only while {getpass.getuser()} is logged in" in result.output
    assert f"loginctl enable-linger {getpass.getuser()}" in result.output


@pytest.mark.parametrize(
    "said",
    [
        "Failed to connect to bus: No medium found",
        "Failed to connect to bus: $DBUS_SESSION_BUS_ADDRESS and $XDG_RUNTIME_DIR not defined",
        "Failed to connect to bus: Connection refused",
        "System has not been booted with systemd as init system (PID 1). Can't operate.",
    ],
)
def test_without_a_bus_nothing_is_written_and_the_ways_out_are_told(programs: Path, lab: Path, said: str) -> None:
    (programs / "systemctl").write_text(f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(said)} >&2; exit 1\n")
    result = run("schedule", "install", "--systemd", "--yes")
    assert result.exit_code == 1
    assert "log in as this user directly" in result.stderr and "--cron" in result.stderr
    assert not (lab / "config").exists()


@pytest.mark.parametrize(("missing", "other"), [("systemctl", "--cron"), ("crontab", "--systemd")])
def test_without_the_program_the_other_way_is_told(
    programs: Path, lab: Path, monkeypatch: pytest.MonkeyPatch, missing: str, other: str
) -> None:
    (programs / missing).unlink()
    monkeypatch.setenv("PATH", str(programs))
    result = run("schedule", "install", "--yes", *(["--cron"] if missing == "crontab" else []))
    assert result.exit_code == 1
    assert f"there is no `{missing}`" in result.stderr and other in result.stderr


@pytest.mark.parametrize(
    "said",
    [
        "no crontab for root",
        "crontab: can't open 'root': No such file or directory",  # BusyBox
        "crontab: can't open '/var/spool/cron/crontabs/me': No such file or directory",
        "fcrontab: user me has no fcrontab.",
        "crontab: can't open your crontab file.",
    ],
)
def test_a_first_line_is_installed_whatever_the_cron_says_of_none(programs: Path, lab: Path, said: str) -> None:
    (programs / "crontab").write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then echo "{said}" >&2; exit 1; fi\ncat > {lab}/crontab\n')
    result = run("schedule", "install", "--cron", "--yes")
    assert result.exit_code == 0, result.output
    mark, line = (lab / "crontab").read_text().splitlines()
    assert (mark, line.startswith("*/15 ")) == (install.MARK, True)


@pytest.mark.parametrize(
    "said",
    [
        "crontab: must be suid to work properly",
        "crontabs/me/: fopen: Permission denied",
        "You (me) are not allowed to use this program (crontab)",
        "crontab: can't open '/var/spool/cron/crontabs/me': Permission denied",
        "crontab: can't change directory to '/var/spool/cron/crontabs': Permission denied",
    ],
)
def test_a_crontab_that_cannot_be_read_is_never_replaced(programs: Path, lab: Path, said: str) -> None:
    (programs / "crontab").write_text(f'#!/bin/sh\nif [ "$1" = -l ]; then echo "{said}" >&2; exit 1; fi\ncat > {lab}/crontab\n')
    result = run("schedule", "install", "--cron", "--yes")
    assert result.exit_code == 1
    assert said in result.stderr
    assert not (lab / "crontab").exists()


def test_a_crontab_that_fails_is_reported(programs: Path) -> None:
    (programs / "crontab").write_text("#!/bin/sh\necho you are not allowed >&2; exit 1\n")
    result = run("schedule", "install", "--cron", "--yes")
    assert result.exit_code == 1
    assert "you are not allowed" in result.stderr


# ------------------------------------------------------------------------------------------------------------ a real device


@pytest.mark.slow
def test_a_real_table_of_this_machine_is_made_and_found_fresh_or_told_why_not(lab: Path) -> None:
    write_plan(make_plan(mobilenet_v1(0.25, 32, classes=10, pairs=1)), lab / "plan.json")
    (lab / "profile.toml").write_text(
        '[tables.mine]\ndevice = "local"\nplan = "plan.json"\nruntime = "onnxruntime"\nrounds = 3\nmax_layers = 1\n'
        'max_held_out_error = "100%"\nout = "tables/mine.parquet"\n'
    )
    result = run("schedule", "once")
    if result.exit_code:
        assert "no table is in force" in result.output + result.stderr  # other work on this machine is no fault of ours
        return
    (status,) = run_json("schedule", "status", "--check")
    assert status["mean_error_percent"] is not None
    assert not [why for why in status["stale"] if "the device has changed" in why]
