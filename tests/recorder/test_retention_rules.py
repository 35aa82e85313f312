"""How long recordings are kept, as the settings say."""

import tomllib
from pathlib import Path

import pytest

from recorder.amounts import Age, Amount
from recorder.retention_rules import Retention, Terms, load_retention
from recorder.settings import SettingsError
from tests.calls import START


def load(text: str) -> Retention:
    return load_retention(tomllib.loads(text), Path("spanrec.toml"))


def test_all_terms_are_taken():
    found = load(
        "[retention]\nkeep = '90d'\nat_least = '1w'\nmax_size = '500GB'\nmin_free = '10%'\n"
        "[retention.tags.sales]\nkeep = '7y'\nat_least = '7y'\n"
        "[retention.tags.legal]\nkeep = 'forever'\n[retention.tags.test]\nmax_size = '1GB'\n"
    )
    assert found.terms == Terms(keep=Age(90, "d"), at_least=Age(1, "w"), max_size=500 * 10**9)
    assert found.min_free == Amount(share=0.1)
    assert found.tags["sales"] == Terms(keep=Age(7, "y"), at_least=Age(7, "y"))
    assert found.tags["legal"] == Terms(forever=True)
    assert found.tags["test"] == Terms(max_size=10**9)
    assert load("") == Retention()


KEPT = Retention(
    Terms(keep=Age(90, "d"), at_least=Age(1, "w")),
    tags={
        "sales": Terms(keep=Age(7, "y")),
        "test": Terms(keep=Age(2, "d")),
        "vip": Terms(at_least=Age(1, "y")),
        "legal": Terms(forever=True),
        "big": Terms(max_size=5),
    },
)


@pytest.mark.parametrize(
    ("tags", "expired", "free", "rule"),
    [
        ((), Age(90, "d"), Age(1, "w"), "retention.keep = 90d"),
        (("unknown",), Age(90, "d"), Age(1, "w"), "retention.keep = 90d"),
        (("big",), Age(90, "d"), Age(1, "w"), "retention.keep = 90d"),
        (("sales",), Age(7, "y"), Age(1, "w"), "retention.tags.sales.keep = 7y"),
        (("sales", "test"), Age(7, "y"), Age(1, "w"), "retention.tags.sales.keep = 7y"),
        (("test",), Age(1, "w"), Age(1, "w"), "retention.tags.test.keep = 2d"),
        (("vip",), Age(1, "y"), Age(1, "y"), "retention.keep = 90d"),
        (("test", "vip"), Age(1, "y"), Age(1, "y"), "retention.tags.test.keep = 2d"),
    ],
)
def test_the_longest_of_what_the_tags_say_counts(tags, expired, free, rule):
    assert KEPT.cutoffs(tags, START) == (expired.before(START), free.before(START), rule)


def test_what_is_kept_forever_does_not_expire():
    assert KEPT.cutoffs(("legal", "test"), START).expired == 0
    expired, free, _ = Retention().cutoffs((), START)
    assert expired == 0
    assert free > START * 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("retention = 3", r"spanrec\.toml: retention: must be a table"),
        (
            "[retention]\nkep = '9d'",
            r"retention: unknown setting 'kep'; known are at_least, keep, max_size, min_free, tags",
        ),
        ("[retention]\nkeep = '90'", "retention: keep: '90' is no length of time"),
        ("[retention]\nmax_size = '10%'", "retention: max_size: '10%' is no amount; write 500GB$"),
        ("[retention]\nmin_free = 'much'", "retention: min_free: 'much' is no amount"),
        ("[retention]\nat_least = 'forever'", "at_least: 'forever' is no length of time"),
        ("[retention]\nkeep = '1w'\nat_least = '8d'", "retention: at_least 8d is longer than keep 1w"),
        ("[retention]\ntags = 3", r"retention.tags: must hold tables: write \[retention.tags.sales\]"),
        ("[retention.tags]\nsales = '7y'", "retention.tags.sales: must be a table"),
        ("[retention.tags.'a b']\nkeep = '7y'", "retention.tags.a b: tag: 'a b' is no tag"),
        ("[retention.tags.sales]\nmin_free = '1%'", "retention.tags.sales: unknown setting 'min_free'"),
    ],
)
def test_what_is_wrong_names_file_and_key(text, says):
    with pytest.raises(SettingsError, match=says):
        load(text)
