"""What `profile serve` answers, to whom, and what it never gives away."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dashboard_folder import NETWORK, REPORT, journal_lines, make_dashboard_folder, make_run, round_ends
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from test_table import table
from typer.testing import CliRunner

from device_agents.device_lock import device_lock
from device_agents.local import LocalAgent
from profiler.cli.app import app as command
from profiler.errors import ServeError
from profiler.interval import Interval
from profiler.latency.validation import HeldOutError, HeldOutNetwork
from profiler.protocol.events import NetworkAdded, Refresh
from profiler.protocol.lines import read_event
from profiler.protocol.settings import Target
from profiler.schedule.state import Failure, State, write_state
from profiler.serve.access import Access, choose_token, is_loopback
from profiler.serve.app import make_app
from profiler.serve.building import DUTY, ErrorPoint, LiveErrors, most_telling, progress_of, read_progress
from profiler.serve.chart import draw, duration
from profiler.serve.dashboard import Dashboard, DashboardState
from profiler.serve.finding import find, id_of
from profiler.tables.build_modelled import build_modelled
from profiler.tables.plan import make_plan, write_plan

TOKEN = "a-token-of-24-letters-ok"
NASTY = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dashboard_folder(tmp_path_factory.mktemp("dashboard") / "lab")


@pytest.fixture
def lab(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil, in which nobody has written a profile.toml."""
    shutil.copytree(built, tmp_path / "lab")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "lab"


def browser(*folders: Path, access: Access | None = None) -> TestClient:
    app = make_app(Dashboard(list(folders)), access or Access("127.0.0.1", 8765))
    return TestClient(app, base_url="http://127.0.0.1:8765", follow_redirects=False)


def status(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = browser(folder).get("/status.json").json()
    return found


def state(folder: Path) -> DashboardState:
    return Dashboard([folder]).state()


def begin(lab: Path, rounds: int = -1) -> Path:
    """A build that has come so far, and its journal."""
    lines = journal_lines(lab)
    path = lab / "growing.journal.jsonl"
    path.write_text("".join(lines[: round_ends(lines)[rounds]]))
    return path


# ------------------------------------------------------------------------------------------------------------- what is shown


def test_the_front_page_shows_tables_devices_and_runs(lab: Path) -> None:
    page = browser(lab).get("/").text
    assert "table.parquet" in page and "mobilenet_v1" in page and "local" in page
    assert "No build is running" in page


def test_a_table_that_is_measured_and_unverified_needs_care(tmp_path: Path) -> None:
    made = table()
    replace(made, info=replace(made.info, created_utc=datetime.now(UTC).isoformat())).save(tmp_path / "t.parquet")
    page, (shown,) = browser(tmp_path).get("/").text, state(tmp_path).tables
    assert (shown.state, shown.verified) == ("fresh", False)
    assert "1 table, 1 needs care" in page and "unverified" in page and "profile check" in page


def test_a_table_that_is_modelled_is_named_so_and_never_fresh(tmp_path: Path) -> None:
    build_modelled([make_plan(NETWORK)], "model:eyeriss", tmp_path / "eyeriss.parquet")
    page, (shown,) = browser(tmp_path).get("/").text, state(tmp_path).tables
    assert (shown.state, shown.needs_care) == ("modelled", False)
    assert "modelled, not measured" in page
    assert "(<code>profile hardware</code>)" in browser(tmp_path).get(f"/tables/{shown.id}").text
    assert "table_fresh{" not in browser(tmp_path).get("/metrics").text


@pytest.mark.parametrize("trained", [True, False])
def test_a_super_network_is_shown_as_one_and_not_as_a_run(tmp_path: Path, trained: bool) -> None:
    plain = {"format": 1, "settings": {"network": {"name": "mobilenet_v2"}}, "widths": {"a": [8, 16]}, "created_utc": "2026-11-28"}
    (tmp_path / "super").mkdir()
    (tmp_path / "super" / "supernet.json").write_text(json.dumps(plain))
    if trained:
        (tmp_path / "super" / "trained.json").write_text("{}")
    page, shown = browser(tmp_path).get("/").text, state(tmp_path)
    assert [(item.network, item.blocks, item.trained) for item in shown.supernets] == [("mobilenet_v2", 1, trained)]
    assert shown.runs == () and "Super-networks" in page
    assert ("not ended" in page) != trained


@pytest.mark.parametrize("text", ["[]", "{", '{"settings": 1, "widths": 2}', '{"settings": {"network": []}}'])
def test_a_damaged_super_network_is_shown_all_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "supernet.json").write_text(text)
    assert browser(tmp_path).get("/").status_code == 200
    assert state(tmp_path).supernets[0].network is None


def test_a_table_of_a_simulated_device_says_so(lab: Path) -> None:
    assert "simulated, not measured" in browser(lab).get("/").text


def test_an_empty_folder_says_which_command_fills_it(tmp_path: Path) -> None:
    page = browser(tmp_path).get("/").text
    assert "profile build plan.json" in page and "netadapt run" in page


def test_the_front_page_is_also_available_as_json(lab: Path) -> None:
    found = status(lab)
    (shown,) = found["tables"]
    assert (shown["name"], shown["state"], shown["runtime"], shown["broken"]) == ("table.parquet", "fresh", "litert", None)
    assert [item["network"] for item in found["runs"]] == ["mobilenet_v1"]
    assert [item["name"] for item in found["devices"]] == ["local"]


def test_a_table_has_a_page_with_its_held_out_figure(lab: Path) -> None:
    client, shown = browser(lab), state(lab).tables[0]
    page = client.get(f"/tables/{shown.id}").text
    assert shown.sentence[1:] in page and "Predicted against measured" in page
    figure = client.get(f"/tables/{shown.id}/held_out.png")
    assert figure.headers["content-type"] == "image/png" and figure.content.startswith(b"\x89PNG")


def test_the_page_that_profile_plot_writes_is_shown_in_a_sandbox(lab: Path) -> None:
    answer = browser(lab).get(f"/tables/{state(lab).tables[0].id}/plot")
    assert "Latency against channels" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_a_table_without_whole_networks_has_nothing_to_draw(tmp_path: Path) -> None:
    table().save(tmp_path / "bare.parquet")
    client, shown = browser(tmp_path), state(tmp_path).tables[0]
    assert client.get(f"/tables/{shown.id}").status_code == 200
    assert client.get(f"/tables/{shown.id}/held_out.png").status_code == 404


def test_a_report_is_served_in_a_sandbox(lab: Path) -> None:
    answer = browser(lab).get(f"/runs/{state(lab).runs[0].id}/report")
    assert answer.text == REPORT
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox;") and "script" not in policy


def test_a_run_without_a_report_shows_the_command_that_writes_one(lab: Path) -> None:
    (lab / "run" / "report.html").unlink()
    client, run = browser(lab), state(lab).runs[0]
    assert f"netadapt report {lab}/run" in client.get("/").text
    answer = client.get(f"/runs/{run.id}/report")
    assert answer.status_code == 404 and "netadapt report" in answer.text


def test_a_report_older_than_the_last_step_is_marked_as_old(lab: Path) -> None:
    os.utime(lab / "run" / "report.html", (1, 1))
    assert state(lab).runs[0].report_is_old


def test_a_run_without_a_report_has_no_old_report(lab: Path) -> None:
    (lab / "run" / "report.html").unlink()
    assert not state(lab).runs[0].report_is_old


def test_a_stale_table_says_why(lab: Path) -> None:
    utc = "2999-01-01T00:00:00+00:00"
    failure = Failure(utc, "phone: it is switched off")
    write_state(lab / "table.parquet", State(utc, "failed", ("the device has changed: kernel",), "…", failure, utc))
    page = browser(lab).get("/").text
    assert "the device has changed: kernel" in page and "it is switched off" in page


def test_a_scheduled_table_is_shown_before_it_exists(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_CONFIG", str(want(lab)))
    shown = {view.name: view for view in state(lab).tables}
    assert (shown["small"].state, shown["small"].stale) == ("missing", ("no table yet",))
    assert "phone" in [device.name for device in state(lab).devices]
    page = browser(lab).get(f"/tables/{shown['small'].id}").text
    assert "profile schedule once" in page


def test_a_scheduled_table_is_stale_for_the_reasons_that_status_gives(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = want(lab, 'out = "table.parquet"\nmax_age_days = 0.000001\n')
    monkeypatch.setenv("PROFILE_CONFIG", str(path))
    (shown,) = state(lab).tables
    said = json.loads(CliRunner().invoke(command, ["schedule", "status", "--json"]).stdout)
    assert list(shown.stale) == said[0]["stale"]
    assert any("old, more than the 0 minutes allowed" in why for why in shown.stale)


def test_a_mistake_in_profile_toml_is_a_sentence_on_the_page(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE_CONFIG", str(want(lab, "thredas = 2\n")))
    page = browser(lab).get("/")
    assert page.status_code == 200 and "thredas" in page.text and "table.parquet" in page.text


def want(lab: Path, more: str = "") -> Path:
    write_plan(make_plan(NETWORK), lab / "plan.json")
    wanted = '[tables.small]\ndevice = "phone"\nplan = "plan.json"\nruntime = "litert"\n'
    text = f'[devices.phone]\naddress = "fake:{lab}/script.toml"\n{wanted}'
    (lab / "profile.toml").write_text(text + more)
    return lab / "profile.toml"


def test_the_process_that_holds_a_device_is_shown(lab: Path) -> None:
    with device_lock(LocalAgent()):
        (device,) = state(lab).devices
        assert device.busy and f"pid {os.getpid()}" in (device.holder or "")
    assert not state(lab).devices[0].busy


# ------------------------------------------------------------------------------------------------------------------- builds


def test_a_build_whose_journal_grows_is_running_and_its_error_is_drawn(lab: Path) -> None:
    begin(lab)
    client = browser(lab)
    page = client.get("/live").text
    assert "data-running" in page and "<polyline" in page
    (build,) = client.get("/status.json").json()["builds"]
    assert build["state"] == "running" and build["errors"][-1]["percent"] > 0


def test_the_error_at_the_end_of_the_journal_is_that_of_its_table(lab: Path) -> None:
    lines = journal_lines(lab)
    path = lab / "ended.journal.jsonl"
    path.write_text("".join(lines))
    errors = LiveErrors().of(path, read_progress(path))
    assert errors[-1].percent == pytest.approx(state(lab).tables[0].mean_error_percent)


def test_computing_errors_takes_a_twentieth_of_the_time(lab: Path) -> None:
    path, moments = begin(lab), iter([0.0, 0.0, 1.0, 1.5, 1 / DUTY, 1.01 + 1 / DUTY, 1.01 + 1 / DUTY, 3.0 + 1 / DUTY])
    live, progress = LiveErrors(lambda: next(moments)), read_progress(path)
    assert len(live.of(path, progress)) == 1  # takes a second
    assert len(live.of(path, progress)) == 1
    assert len(live.of(path, progress)) == 1
    assert len(live.of(path, progress)) == 2


def test_no_error_is_computed_for_a_program_that_collects_metrics(lab: Path) -> None:
    begin(lab)
    client = browser(lab)
    assert "build_held_out_mean_error_ratio{" not in client.get("/metrics").text
    client.get("/")
    assert "build_held_out_mean_error_ratio{" in client.get("/metrics").text


@given(st.sets(st.integers(0, 30), min_size=1), st.data())
def test_the_last_round_comes_first_and_every_round_in_the_end(ends: set[int], data: st.DataObject) -> None:
    order, known = sorted(ends), dict.fromkeys(data.draw(st.sets(st.sampled_from(sorted(ends)))))
    first = most_telling(order, known)
    assert first == order[-1] or order[-1] in known
    for _ in ends:
        if (number := most_telling(order, known)) is not None:
            known[number] = None
    assert set(known) == ends


def test_a_build_that_ended_in_order_without_a_table_is_interrupted(lab: Path) -> None:
    path = begin(lab)
    path.write_text(path.read_text() + '{"event":"spent","wall_s":1.0}\n')
    assert state(lab).builds[0].state == "interrupted"
    assert "--resume" in browser(lab).get("/").text


def test_a_build_that_has_been_silent_for_long_is_interrupted(lab: Path) -> None:
    os.utime(begin(lab), (1, 1))
    assert state(lab).builds[0].state == "interrupted"


def test_the_journal_of_a_table_that_is_ready_is_no_build(lab: Path) -> None:
    assert state(lab).builds == ()


def test_of_a_refresh_only_what_is_new_is_counted(lab: Path) -> None:
    events = [read_event(json.loads(line)) for line in journal_lines(lab)]
    models = tuple(event.model for event in events if isinstance(event, NetworkAdded))
    after = progress_of([*events, Refresh(models, "2026-01-01T00:00:00+00:00")])
    assert (after.rounds, after.measuring_s, after.networks_measured, after.round_ends) == (0, 0.0, 0, ())
    assert after.layers_measured == progress_of(events).layers_measured


# -------------------------------------------------------------------------------------------------------------------- charts


def test_a_chart_keeps_its_points_inside() -> None:
    drawn = draw([ErrorPoint(1, 80.0), ErrorPoint(60, 0.7)], [ErrorPoint(30, 2.0)], 5.0, 61)
    assert drawn is not None and drawn.limit is not None
    for x, y in [point for curve in drawn.curves for point in curve.points]:
        assert drawn.left <= x <= drawn.right and drawn.top <= y <= drawn.bottom
    assert [tick.text for tick in drawn.up] == ["0.5 %", "1 %", "2 %", "5 %", "10 %", "20 %", "50 %", "100 %"]


@given(st.lists(st.builds(ErrorPoint, st.floats(0, 1e7), st.floats(0, 1e9)), min_size=1), st.floats(0.01, 100))
def test_any_errors_can_be_drawn(errors: list[ErrorPoint], limit: float) -> None:
    drawn = draw(errors, [], limit, 0.0)
    assert drawn is not None and len(drawn.up) >= 2 and len(drawn.across) >= 1
    assert all(drawn.top - 1 <= y <= drawn.bottom + 1 for _, y in drawn.curves[0].points)


def test_nothing_known_is_no_chart() -> None:
    assert draw([], [], 5.0, 10.0) is None


def test_durations_have_one_suitable_unit() -> None:
    assert [duration(seconds) for seconds in (5, 60, 300, 10_000)] == ["5 s", "1 min", "5 min", "2.8 h"]


# ------------------------------------------------------------------------------------------------------- what is broken or evil


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1", b"\xff" * 2000])
def test_a_broken_table_is_a_sentence(lab: Path, data: bytes) -> None:
    (lab / "table.parquet").write_bytes(data)
    client = browser(lab)
    assert "broken" in client.get("/").text
    (shown,) = state(lab).tables
    assert shown.broken and shown.state == "broken"
    assert client.get(f"/tables/{shown.id}").status_code == 200
    assert client.get(f"/tables/{shown.id}/plot").status_code == 404


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"nonsense\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"event":"journal","format":2}\n']
)
def test_a_broken_journal_is_a_sentence(lab: Path, data: bytes) -> None:
    (lab / "bad.journal.jsonl").write_bytes(data)
    answer = browser(lab).get("/")
    assert answer.status_code == 200 and "broken" in answer.text
    assert state(lab).builds[0].broken


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_broken_run_is_a_sentence(lab: Path, data: bytes) -> None:
    (lab / "run" / "run.json").write_bytes(data)
    assert state(lab).runs[0].broken
    assert browser(lab).get("/").status_code == 200


def test_a_parquet_file_that_is_not_a_table_is_left_out(lab: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), lab / "figures.parquet")
    assert [view.name for view in state(lab).tables] == ["table.parquet"]


def test_a_table_with_text_in_place_of_a_number_is_broken(tmp_path: Path) -> None:
    told = HeldOutError.of([HeldOutNetwork("n", Interval(1.0, 0.9, 1.1), 1.05, 1.3)])
    table().with_held_out(replace(told, mean_error_percent="ten")).save(tmp_path / "t.parquet")  # type: ignore[arg-type]
    assert state(tmp_path).tables[0].state == "broken"
    assert browser(tmp_path).get("/").status_code == 200


def test_names_are_escaped_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evil = "<script>alert(1)<"
    made = table().with_held_out(HeldOutError.of([HeldOutNetwork(NASTY, Interval(1.0, 0.9, 1.1), 1.05, 1.3)]))
    made = replace(made, info=replace(made.info, target=Target(NASTY, "litert")))
    made.save(tmp_path / f"{evil}.parquet")
    make_run(tmp_path / evil)
    plain = {"format": 3, "network": NASTY, "budgets": [NASTY], "created_utc": NASTY}
    (tmp_path / evil / "run.json").write_text(json.dumps(plain))
    head = {"event": "journal", "format": 4, "target": {"device": NASTY, "runtime": "litert", "threads": 1}, "settings": {}}
    paused = {"event": "paused", "reason": NASTY}
    (tmp_path / f"{evil}.journal.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(paused)}\n")
    client, shown = browser(tmp_path), state(tmp_path).tables[0]
    for path in ("/", "/live", f"/tables/{shown.id}", f"/tables/{shown.id}/plot"):
        text = client.get(path).text
        assert "alert(1)" in text, path
        assert "<script>alert" not in text, path
    assert NASTY in client.get("/metrics").text  # plain text, in which a quoted label may hold it


def test_a_name_that_is_no_text_is_shown_all_the_same(lab: Path) -> None:
    shutil.copyfile(lab / "table.parquet", lab / os.fsdecode(b"caf\xe9.parquet"))
    client = browser(lab)
    for path in ("/", "/status.json", "/metrics"):
        assert client.get(path).status_code == 200
    (odd,) = [view for view in state(lab).tables if view.name != "table.parquet"]
    assert client.get(f"/tables/{odd.id}").status_code == 200


# ---------------------------------------------------------------------------------------------------------- paths and links


@pytest.mark.parametrize(
    "path",
    [
        "/tables/../../secret", "/tables/..%2f..%2fsecret", "/tables/%2e%2e/%2e%2e/secret", "/runs/%2e%2e/report",
        "/runs/%2fetc/report", "/runs//etc/passwd/report", "/runs/..%5c..%5csecret/report", "/static/../app.py",
        "/static/%2e%2e/app.py", "/static/%2e%2e%2f%2e%2e%2fcli.py", "/static//etc/passwd", "/tables/%00", "/tables/\u2026/plot",
        "//etc/passwd", "/static/", "/static",
    ],
)  # fmt: skip
def test_no_path_in_a_request_leads_to_a_file(lab: Path, path: str) -> None:
    (lab.parent / "secret").write_text("the secret")
    answer = browser(lab).get(f"http://127.0.0.1:8765{path}")
    assert answer.status_code in (307, 404)
    assert "the secret" not in answer.text and "import" not in answer.text and "root:" not in answer.text


def test_links_that_lead_out_of_the_folder_are_not_followed(lab: Path) -> None:
    outside = lab.parent / "outside"
    outside.mkdir()
    shutil.move(lab / "table.parquet", outside / "table.parquet")
    (outside / "secret.html").write_text("the secret")
    (lab / "table.parquet").symlink_to(outside / "table.parquet")
    (lab / "all").symlink_to(outside)
    (lab / "run" / "report.html").unlink()
    (lab / "run" / "report.html").symlink_to(outside / "secret.html")
    (lab / "loop.parquet").symlink_to(lab / "loop.parquet")
    seen = state(lab)
    assert seen.tables == ()
    assert not seen.runs[0].report
    assert browser(lab).get(f"/runs/{seen.runs[0].id}/report").status_code == 404


def test_a_link_within_the_folder_shows_its_table_once(lab: Path) -> None:
    (lab / "latest.parquet").symlink_to(lab / "table.parquet")
    assert len(state(lab).tables) == 1


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(lab: Path) -> None:
    os.mkfifo(lab / "pipe.parquet")
    (lab / "run" / "report.html").unlink()
    os.mkfifo(lab / "run" / "report.html")
    assert stat.S_ISFIFO((lab / "pipe.parquet").stat().st_mode)
    assert len(state(lab).tables) == 1 and not state(lab).runs[0].report


def test_what_lies_too_deep_or_is_history_is_not_searched(lab: Path) -> None:
    for place in (lab / "history", lab / "/".join("abcdefghij"), lab / ".hidden"):
        place.mkdir(parents=True)
        shutil.copyfile(lab / "table.parquet", place / "old.parquet")
    assert len(find([lab]).tables) == 1


def test_a_folder_that_was_deleted_is_reported(tmp_path: Path) -> None:
    assert "does not exist" in state(tmp_path / "gone").notes[0]


def test_an_id_shows_the_name_of_a_file_and_not_its_folder() -> None:
    assert re.fullmatch(r"mobile-net-[0-9a-f]{10}", id_of(Path("/home/me/Mobile net.parquet")))
    assert id_of(Path("/a/t.parquet")) != id_of(Path("/b/t.parquet"))


# -------------------------------------------------------------------------------------------------------------- who may look


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "[::1]:8765", "LOCALHOST:8765"])
def test_this_machine_may_be_called_by_its_own_names(lab: Path, host: str) -> None:
    assert browser(lab).get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1.evil.example", "169.254.169.254", "", "localhost@evil.example"])
def test_another_name_pointed_at_this_machine_is_refused(lab: Path, host: str) -> None:
    assert browser(lab).get("/status.json", headers={"host": host}).status_code == 400


def guarded(lab: Path) -> TestClient:
    return browser(lab, access=Access("0.0.0.0", 8765, TOKEN))


@pytest.mark.parametrize(
    "path", ["/", "/live", "/status.json", "/metrics", "/static/style.css", "/nowhere", "/?token=", "/?token=wrong"]
)
def test_without_the_token_nothing_is_shown(lab: Path, path: str) -> None:
    answer = guarded(lab).get(path)
    assert answer.status_code == 401
    assert "table.parquet" not in answer.text and "set-cookie" not in answer.headers


def test_the_token_is_shown_once_and_then_in_a_cookie(lab: Path) -> None:
    client = guarded(lab)
    first = client.get(f"/?token={TOKEN}")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert TOKEN not in first.text
    assert "table.parquet" in client.get("/").text


def test_a_program_sends_the_token_as_a_header(lab: Path) -> None:
    client = guarded(lab)
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    for wrong in (f"Basic {TOKEN}", "Bearer", "Bearer wrong", "Bearer \u00e9".encode("latin-1")):
        assert client.get("/metrics", headers={"Authorization": wrong}).status_code == 401


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert choose_token("0.0.0.0", tmp_path / "token") == (TOKEN, False)
    monkeypatch.setenv("PROFILE_SERVE_TOKEN", TOKEN)
    assert choose_token("127.0.0.1", None) == (TOKEN, False)


def test_without_one_a_token_is_made_where_others_can_reach_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROFILE_SERVE_TOKEN", raising=False)
    assert choose_token("127.0.0.1", None) == (None, False)
    made, new = choose_token("192.168.0.2", None)
    assert new and made is not None and len(made) >= 32


@pytest.mark.parametrize("token", ["", "short", "with a blank in it, long", "umläute-sind-auch-nichts"])
def test_a_token_that_is_none_is_refused_without_being_repeated(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("PROFILE_SERVE_TOKEN", token)
    with pytest.raises(ServeError, match="at least 16") as told:
        choose_token("127.0.0.1", None)
    assert not token or token not in str(told.value)


def test_only_this_machine_is_this_machine() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "localhost.evil.example", "")))


def test_a_page_may_load_nothing_from_elsewhere(lab: Path) -> None:
    answer = browser(lab).get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert not re.findall(r'\son\w+=|style="', answer.text)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(lab: Path, method: str) -> None:
    assert browser(lab).request(method, "/").status_code == 405


# ------------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_what_prometheus_reads(lab: Path) -> None:
    begin(lab)
    write_state(lab / "table.parquet", State(failure=Failure("2026-01-01T00:00:00+00:00", "why")))
    client = browser(lab)
    client.get("/")
    found = {item.name: item for item in text_string_to_metric_families(client.get("/metrics").text)}

    def value(name: str) -> float:
        (sample,) = found[f"netadapt_profiler_{name}"].samples
        return float(sample.value)

    shown = state(lab).tables[0]
    assert 0 <= value("table_age_seconds") < 3600
    assert value("table_held_out_mean_error_ratio") == pytest.approx((shown.mean_error_percent or 0) / 100)
    assert value("table_held_out_worst_error_ratio") >= value("table_held_out_mean_error_ratio")
    assert (value("table_fresh"), value("builds_running")) == (1, 1)
    busy = {sample.labels["device"]: sample.value for sample in found["netadapt_profiler_device_busy"].samples}
    assert busy["local"] == 0 and sum(busy.values()) == 1
    assert value("table_last_failure_timestamp_seconds") == 1767225600
    assert value("build_layers_measured") > 0
    assert {sample.labels["table"] for sample in found["netadapt_profiler_table_fresh"].samples} == {"table.parquet"}


def test_labels_of_any_kind_come_through(tmp_path: Path) -> None:
    name = 'we"ird\\na\nme{}'
    table().save(tmp_path / f"{name}.parquet")
    found = {item.name: item for item in text_string_to_metric_families(browser(tmp_path).get("/metrics").text)}
    (sample,) = found["netadapt_profiler_table_layers"].samples
    assert sample.labels["table"] == f"{name}.parquet"


# ------------------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_one_sentence(lab: Path, taken: int) -> None:
    result = CliRunner().invoke(command, ["serve", str(lab), "--port", str(taken)])
    assert result.exit_code == 1
    assert result.output.count("\n") == 1 and "already in use; choose another --port" in result.output


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["--config", "nowhere.toml"], ["--host", "no.such.host.invalid"], ["--token-file", "nowhere"]]
)
def test_what_cannot_be_served_is_one_sentence(lab: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(command, ["serve", *arguments, "--port", "0"], env={"PROFILE_CONFIG": ""})
    assert (result.exit_code, result.output.count("\n")) == (1, 1), result.output


def test_without_its_packages_the_error_names_what_to_install(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(command, ["serve", str(lab)])
    assert result.exit_code == 1 and "pip install 'netadapt-profiler[serve]'" in result.output
