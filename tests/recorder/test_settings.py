"""Settings."""

import pytest

from recorder.settings import CAPTURE, FILE, KEYS, SettingsError, defaults, load


def test_without_a_file_there_are_no_settings(tmp_path):
    assert load(tmp_path, {}) == {}


def test_settings_become_defaults_of_the_commands(tmp_path):
    (tmp_path / FILE).write_text('out = "calls"\nworkers = 3\nformat = "flac"\nmono = true\n')
    found = defaults(load(tmp_path, {}))
    assert found["replay"] == {"out": "calls", "workers": 3, "audio_format": "flac", "mono": True}
    assert found["calls"]["list"] == {"out": "calls"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("wrokers = 3", r"spanrec\.toml: unknown setting 'wrokers'; known are .*workers"),
        ("[replay]\nworkers = 3", "unknown setting 'replay'"),
        ('workers = "3"', "workers must be a whole number, not '3'"),
        ("workers = true", "workers must be a whole number"),
        ("mono = 1", "mono must be true or false"),
        ("out = ", "is no TOML"),
        ("\xff", "is no TOML"),
    ],
)
def test_what_is_wrong_names_file_and_key(tmp_path, content, says):
    (tmp_path / FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(SettingsError, match=says):
        load(tmp_path, {})


def test_the_environment_may_name_another_file(tmp_path):
    other = tmp_path / "other.toml"
    other.write_text("quiet = true")
    assert load(tmp_path, {"SPANREC_CONFIG": str(other)}) == {"quiet": True}
    with pytest.raises(SettingsError, match="it is not there"):
        load(tmp_path, {"SPANREC_CONFIG": str(tmp_path / "none")})


def test_the_tables_of_the_service_stand_beside_the_options(tmp_path):
    (tmp_path / FILE).write_text(
        'out = "calls"\n[capture]\ninterface = ["eth1"]\nfilter = "udp"\n'
        '[retention]\nkeep = "90d"\n[retention.tags.sales]\nkeep = "7y"\n'
        '[policy]\nlocal = "10.0.0.0/8"\n[[rule]]\nnumber = "112"\naction = "skip"\n'
    )
    values = load(tmp_path, {})
    found = defaults(values)
    assert found["capture"] == {"out": "calls", "interface": ["eth1"], "filter_": "udp"}
    assert found["replay"] == found["calls"]["expire"] == {"out": "calls"}
    assert values["rule"][0]["number"] == "112"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("capture = 3", r"capture must be a table: write \[capture\]"),
        ("[capture]\nstopp_at = '2%'", "unknown setting 'stopp_at'; known are filter, .*stop_at"),
        ("[capture]\nstop_at = 2", "stop_at must be a string, not 2"),
        ("[capture]\ninterface = 'eth1'", "interface must be a list of strings, not 'eth1'"),
        ("[capture]\ninterface = [1]", "interface must be a list of strings"),
        ("[policy]\nlocal = 3", r"spanrec\.toml: \[policy\]: local"),
        ("[[rule]]\naction = 'no'", r"spanrec\.toml: rule 1: action"),
        ("[retention]\nkepp = '90d'", r"spanrec\.toml: retention: unknown setting 'kepp'"),
        ("nothing = 1", r"known are .*workers, \[capture\], \[policy\], \[retention\], \[rule\]"),
    ],
)
def test_the_tables_are_checked_as_soon_as_they_are_read(tmp_path, content, says):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(SettingsError, match=says):
        load(tmp_path, {})


def test_every_setting_is_an_option():
    import inspect

    from recorder.cli_capture import capture_command
    from recorder.cli_replay import replay_command

    replay = set(inspect.signature(replay_command).parameters)
    assert set(defaults(dict.fromkeys(KEYS))["replay"]) <= replay
    capture = set(inspect.signature(capture_command).parameters)
    assert {*defaults({"capture": dict.fromkeys(CAPTURE)})["capture"], "out"} == capture, "and every option a setting"
