"""What the documents say of settings is what there is."""

import re
from pathlib import Path

import pytest

from recorder.policy_file import SENDING
from recorder.settings import read
from recorder.siprec import server_list, src_settings, srs_settings
from recorder.siprec.control import EventKind
from recorder.siprec.src_control import OVERRIDES

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", ["siprec.md", "srs.md"])
def test_the_example_can_be_used(tmp_path, name):
    (example,) = re.findall(r"```toml\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    path = tmp_path / "spanrec.toml"
    path.write_text(example)
    assert read(path)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("siprec.md", (*src_settings.KEYS, *SENDING, *server_list.KEYS, *EventKind, *OVERRIDES)),
        ("srs.md", srs_settings.KEYS),
    ],
)
def test_every_key_is_told_of(name, keys):
    text = (DOCS / name).read_text()
    missing = [key for key in keys if f"`{key}`" not in text and f"[[{name[:3]}.{key}]]" not in text]
    assert [key for key in missing if f".{key}]" not in text] == []
