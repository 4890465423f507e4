"""Keys below tagging-policies/ and custom-properties/: what each means, and what is said of those that mean nothing."""

from __future__ import annotations

import shlex
from urllib.parse import quote

import pytest
from finops_relay.errors import InputRefused
from finops_relay.jobs.syncing.drop_path import (
    DropPath,
    Meaning,
    parse_properties,
    parse_tag,
    place,
    run_command,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

LISTS = (".csv", ".json", ".txt")
DELIVERY = "0123456789abcdef" * 4
EXAMPLES = settings(max_examples=150)


def understood(key: str) -> DropPath | InputRefused:
    """Return what *key* means, or why it is refused."""
    try:
        if "tagging-policies/" in key:
            return parse_tag(key, LISTS)
        return parse_properties(key, (".csv",))
    except InputRefused as error:
        return error


def refused(key: str) -> InputRefused:
    """Return why *key* is refused."""
    found = understood(key)
    assert isinstance(found, InputRefused)
    assert found.file == key
    assert found.fix
    return found


@pytest.mark.parametrize("root", ["incoming", "plan"])
@pytest.mark.parametrize(
    ("name", "meaning", "key"),
    [
        ("CostCenter.csv", Meaning.FILE, "CostCenter"),
        ("CostCenter.JSON", Meaning.FILE, "CostCenter"),
        ("CostCenter.txt", Meaning.FILE, "CostCenter"),
        ("CostCenter.sync", Meaning.RUN, "CostCenter"),
        ("cost center.csv", Meaning.FILE, "cost center"),
        ("app.csv.txt", Meaning.FILE, "app.csv"),
        ("kubernetes.io%2Fname.csv", Meaning.FILE, "kubernetes.io/name"),
        ("caf%C3%A9.sync", Meaning.RUN, "café"),
        ("100%.csv", Meaning.FILE, "100%"),
        ("a+b.csv", Meaning.FILE, "a+b"),
    ],
)
def test_a_key_says_which_policy_and_which_tag_are_meant(root: str, name: str, meaning: Meaning, key: str) -> None:
    expected = DropPath(meaning, root == "plan", "standard", key)
    assert parse_tag(f"{root}/tagging-policies/standard/{name}", LISTS) == expected


@pytest.mark.parametrize("root", ["incoming", "plan"])
def test_a_file_of_properties_may_have_any_name(root: str) -> None:
    folder = f"{root}/custom-properties"
    dry = root == "plan"
    assert parse_properties(f"{folder}/p.csv", (".csv",)) == DropPath(Meaning.FILE, dry, name="p")
    assert parse_properties(f"{folder}/any.sync", (".csv",)) == DropPath(Meaning.RUN, dry, name="any")
    mended = DropPath(Meaning.MENDED, dry, mends=DELIVERY)
    assert parse_properties(f"{folder}/mended/{DELIVERY}.csv", (".csv",)) == mended


@pytest.mark.parametrize("root", ["incoming", "plan"])
def test_mended_rows_name_the_delivery_that_they_mend(root: str) -> None:
    found = parse_tag(f"{root}/tagging-policies/standard/mended/{DELIVERY}.csv", LISTS)
    assert found == DropPath(Meaning.MENDED, root == "plan", "standard", mends=DELIVERY)


@pytest.mark.parametrize("key", ["tagging-policies/", "tagging-policies/standard/", "custom-properties/"])
def test_a_folder_by_itself_is_nothing(key: str) -> None:
    parse = parse_tag if key.startswith("tagging") else parse_properties
    assert parse(f"incoming/{key}", LISTS).meaning is Meaning.NOTHING


@pytest.mark.parametrize(
    ("key", "reason", "fix"),
    [
        ("tagging-policies/a.csv", "which policy is meant", "incoming/tagging-policies/<policy>/a.csv"),
        ("tagging-policies/a b/c.csv", "no name of a policy", "by the policy's id at Infracost"),
        ("tagging-policies//c.csv", "no name of a policy", "by the policy's id at Infracost"),
        ("tagging-policies/p/a/b.csv", "a folder that means nothing", "incoming/tagging-policies/p/<tag key>.csv"),
        ("tagging-policies/p/a.xlsx", "the suffix is none that is read", "<tag key>.csv, .json, .txt, or as incoming"),
        ("tagging-policies/p/.csv", "the suffix is none that is read", "to read its source"),
        ("tagging-policies/p/.sync", "the suffix is none that is read", "to read its source"),
        ("tagging-policies/p/a", "the suffix is none that is read", "to read its source"),
        ("tagging-policies/p/mended/a.csv", "does not say which delivery", "{delivery id}.csv"),
        (f"tagging-policies/p/mended/{DELIVERY}.txt", "does not say which delivery", "{delivery id}.csv"),
        ("custom-properties/a.txt", "the suffix is none that is read", "incoming/custom-properties/<file>.csv"),
        ("custom-properties/a/b.csv", "a folder that means nothing", "incoming/custom-properties/<file>.csv"),
        ("custom-properties/mended/a.csv", "does not say which delivery", "{delivery id}.csv"),
    ],
)
def test_a_key_that_means_nothing_is_refused_with_the_way_to_say_it(key: str, reason: str, fix: str) -> None:
    refusal = refused(f"incoming/{key}")
    assert reason in refusal.reason
    assert fix in refusal.fix


@pytest.mark.parametrize(
    "key", ["tagging-policies/p/a.csv", "elsewhere/tagging-policies/p/a.csv", "x/custom-properties/a"]
)
def test_a_key_of_another_folder_is_refused(key: str) -> None:
    assert refused(key).reason.startswith("not a folder of")


@EXAMPLES
@given(
    rest=st.text(st.sampled_from("ab./%2F é.csvsynctxt\x00\n"), max_size=20), root=st.sampled_from(["incoming", "plan"])
)
@example(rest="p/%00.csv", root="incoming")
def test_any_key_is_understood_or_refused_with_a_way_out(rest: str, root: str) -> None:
    for folder in ("tagging-policies", "custom-properties"):
        found = understood(f"{root}/{folder}/{rest}")
        if isinstance(found, InputRefused):
            assert found.fix
            assert str(found).encode()
        else:
            assert found.dry_run == (root == "plan" and found.meaning is not Meaning.NOTHING)
            assert found.name or found.meaning not in {Meaning.FILE, Meaning.RUN}


@EXAMPLES
@given(key=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
@example(key="kubernetes.io/name")
@example(key="a b's; rm -rf /")
@example(key="..")
def test_the_command_that_reads_a_source_drops_a_key_that_means_just_that_tag(key: str) -> None:
    words = shlex.split(run_command("drops", "tagging-policies/standard", key))
    assert words[:-1] == ["aws", "s3api", "put-object", "--bucket", "drops", "--key"]
    assert parse_tag(words[-1], LISTS) == DropPath(Meaning.RUN, policy="standard", name=key)


def test_a_file_belongs_to_the_same_place_planned_or_for_real_mended_or_not() -> None:
    keys = [f"{root}/tagging-policies/p/{name}" for root in ("incoming", "plan") for name in ("a.csv", "mended/b.csv")]
    assert {place(key) for key in keys} == {"tagging-policies/p/"}
    assert place(f"incoming/tagging-policies/{quote('q')}/a.csv") != place(keys[0])
    assert place("incoming/custom-properties/mended/a.csv") == place("plan/custom-properties/b.csv")
