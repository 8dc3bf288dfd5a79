"""The schedule in profile.toml: its settings, their defaults, and the messages for mistakes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agents.support.errors import ConfigError, ToolError
from profiler.schedule.config import ScheduleConfig, read_schedule
from profiler.schedule.cron import parse_cron

LEAST = '[tables.mine]\ndevice = "local"\nplan = "plan.json"\nruntime = "litert"\n'


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may see a file of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PROFILE_CONFIG", raising=False)


def read(text: str) -> ScheduleConfig:
    Path("profile.toml").write_text(text)
    return read_schedule()


def test_three_keys_are_enough_and_the_rest_has_defaults() -> None:
    (table,) = read(LEAST).tables
    assert (table.name, table.target.device, table.target.runtime) == ("mine", "local", "litert")
    assert (table.out, table.max_held_out_error_percent, table.max_age_days, table.keep) == (Path("mine.parquet"), 5.0, 30.0, 5)
    assert table.when.next_after(datetime(2026, 1, 1, tzinfo=UTC)).minute == 0


def test_every_setting_is_read() -> None:
    schedule = read(
        '[devices.pixel]\naddress = "adb:1A"\n'
        + LEAST.replace("local", "pixel")
        + 'threads = 2\ntarget_error = "3%"\nmax_held_out_error = 4\nmax_age_days = 7.5\n'
        + 'when = "*/5 * * * 1-5"\nout = "t/x.parquet"\nkeep = 0\n'
        + 'max_layers = 40\nrounds = 4\nenergy = true\n[schedule]\nwebhook = "https://h/T0KEN"\ncommand = ["x", "y"]\n'
    )
    (table,) = schedule.tables
    assert (table.target.threads, table.stop.target_error_percent, table.max_held_out_error_percent) == (2, 3.0, 4.0)
    assert (table.settings.rounds, table.stop.max_layers, table.out) == (4, 40, Path("t/x.parquet"))
    assert (table.energy, schedule.notifications.command) == (True, ("x", "y"))


def test_a_secret_in_the_file_is_not_shown_where_its_settings_are() -> None:
    assert "T0KEN" not in repr(read(LEAST + '[schedule]\nwebhook = "https://h/T0KEN"\ncommand = ["x", "T0KEN"]\n'))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"lists no tables; add a section"),
        (LEAST.replace("[tables.", "[table."), r"line 1: the file has no setting 'table'; did you mean 'tables'"),
        (LEAST + "thread = 2\n", r"line 5: table 'mine' has no setting 'thread'; did you mean 'threads'"),
        (LEAST.replace("litert", "litret"), r"line 4: .*no runtime 'litret'; did you mean 'litert'"),
        (LEAST.replace("local", "locl"), r"line 2: .*did you mean 'local"),
        (LEAST.replace('plan = "plan.json"\n', ""), r"line 1: .*needs a plan, such as"),
        (LEAST + 'held_out = "5%"\n', r"line 5: .*no setting 'held_out'; did you mean 'max_held_out_error'"),
        (LEAST + 'until = "2%"\n', r"line 5: .*no setting 'until'"),
        (LEAST + "threads = true\n", r"line 5: .*whole number from 1"),
        (LEAST + 'when = "0 3 * *"\n', r"line 5: .*five fields"),
        (LEAST + 'when = "0 25 * * *"\n', r"line 5: .*not a cron expression"),
        (LEAST + 'when = "0 0 31 2 *"\n', r"line 5: .*no such day"),
        (LEAST + 'out = "mine.txt"\n', r"line 5: .*ends in \.parquet"),
        (LEAST + "max_age_days = -1\n", r"line 5: .*above 0"),
        (LEAST + 'target_error = "two"\n', r"line 5: .*percentage"),
        (LEAST + LEAST.replace("mine", "other") + 'out = "mine.parquet"\n', r"line 9: tables 'mine' and 'other' cannot both"),
        (LEAST + '[schedule]\nwebhook = "ftp://T0KEN"\n', r"line 6: .*begins with https"),
        (LEAST + '[schedule]\ncommand = "mail T0KEN"\n', r"line 6: .*list of texts"),
        (LEAST.replace("tables.mine", 'tables."../x"'), r"line 1: .*needs a name of letters"),
        # the word also stands elsewhere: the line is that of its own section
        ('[devices.a]\naddress = "local"\ncpus = "all"\n' + LEAST + "cpus = 3\n", r"line 8: .*has no setting 'cpus'"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_the_nearest_name(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(text)
    assert "T0KEN" not in str(caught.value)


def test_without_a_file_the_error_says_to_write_one() -> None:
    with pytest.raises(ConfigError, match="write one"):
        read_schedule()


@pytest.mark.parametrize(
    ("text", "next_one"),
    [
        ("0 3 * * *", "2026-11-22T03:00"),
        ("0 3 * * 0", "2026-11-22T03:00"),  # Sunday, as cron has it
        ("0 3 * * 7", "2026-11-22T03:00"),
        ("0 3 * * 1", "2026-11-23T03:00"),
        ("0 3 * * 5-7", "2026-11-22T03:00"),
        ("0 3 * * tue", "2026-11-24T03:00"),
        ("*/15 * * * *", "2026-11-21T19:15"),
        ("@nightly", "2026-11-22T03:00"),
    ],
)
def test_a_cron_expression_means_what_cron_takes_it_for(text: str, next_one: str) -> None:
    saturday = datetime(2026, 11, 21, 19, 0, tzinfo=UTC)
    assert parse_cron(text, UTC).next_after(saturday).isoformat(timespec="minutes").removesuffix("+00:00") == next_one


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.text(alphabet="0123456789*/,-@ monsuLW", max_size=24))
def test_any_text_is_a_cron_expression_or_refused(text: str) -> None:
    try:
        assert parse_cron(text, UTC).next_after(datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)
    except ValueError as exc:
        assert str(exc)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_file_or_an_error_of_ours(data: bytes) -> None:
    Path("profile.toml").write_bytes(data)
    with pytest.raises(ToolError):
        read_schedule()


VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.booleans().map(lambda value: str(value).lower()),
    st.text(alphabet="abc./%5 *\\t:é", max_size=12).map(lambda text: f"'{text}'"),
    st.sampled_from(["[]", "[1]", "{}", "{ a = 1 }", "1979-05-27", '"\\u0000"', '"~nobody/x"', '["a", 3]', '"http://[/"']),
)
WORDS = st.sampled_from(
    [
        "device",
        "plan",
        "runtime",
        "threads",
        "target_error",
        "max_held_out_error",
        "max_age_days",
        "when",
        "out",
        "keep",
        "rounds",
        "max_layers",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.dictionaries(WORDS, VALUES, max_size=4), st.dictionaries(st.sampled_from(["webhook", "command"]), VALUES, max_size=2))
def test_any_value_is_understood_or_refused(table: dict[str, str], notifications: dict[str, str]) -> None:
    said = {"device": '"local"', "plan": '"p.json"', "runtime": '"litert"'} | table
    lines = ["[tables.x]", *(f"{word} = {value}" for word, value in said.items())]
    lines += ["[schedule]", *(f"{word} = {value}" for word, value in notifications.items())]
    try:
        assert len(read("\n".join(lines)).tables) == 1
    except ToolError:
        pass
