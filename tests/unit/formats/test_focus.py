from __future__ import annotations

import json
from decimal import Decimal

import pytest
from finops_relay.formats.focus import read_tags
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.formats.costs import FOCUS, HOSTILE, HOUR, fault, only, quoted, read, refused, table


def focus(**changes: str) -> dict[str, str]:
    return {**FOCUS, **changes}


def columns(**changes: str) -> dict[str, str]:
    return only(table(focus(**changes))).columns


def test_every_column_goes_where_the_contract_page_says() -> None:
    row = only(table(FOCUS))
    assert row.columns == {
        "time/usage_start": "2026-02-04T00:00:00Z",
        "time/usage_end": "2026-02-04T01:00:00Z",
        "cost/cost": "1.25",
        "cost/discounted_cost": "1.25",
        "cost/amortized_cost": "1.25",
        "cost/discounted_amortized_cost": "1.25",
        "cost/on_demand_cost": "1.5",
        "usage/amount": "1",
        "usage/units": "Hrs",
        "lineitem/type": "Usage",
        "lineitem/description": "an hour of t3.micro",
        "lineitem/cloud_provider": "AWS",
        "resource/id": "Instance/i-1",
        "resource/service": "Amazon EC2",
        "resource/account": "444455556666",
        "resource/region": "eu-west-1",
        "resource/usage_family": "Virtual Machines",
        "action/usage_type": "SKU1",
        "resource/tag:team": "core",
    }
    assert row.hour == HOUR
    assert row.costs == (Decimal("1.25"), Decimal("1.25"), Decimal("1.25"), Decimal("1.25"), Decimal("1.5"))


def test_the_reader_says_that_it_is_focus() -> None:
    done = read(table(FOCUS))
    assert (done.reader.form, done.reader.columns) == ("focus", tuple(FOCUS))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"ChargeCategory": "Tax"}, "Tax"),
        ({"ChargeCategory": "Credit"}, "Credit"),
        ({"ChargeCategory": "Adjustment"}, "Adjustment"),
        ({"ChargeCategory": "Purchase"}, "Purchase"),
        ({"ChargeCategory": "Purchase", "CommitmentDiscountId": "sp-1"}, "CommittedUsePurchase"),
        ({"ChargeCategory": "Usage", "CommitmentDiscountId": "sp-1", "CommitmentDiscountStatus": "Used"}, "Usage"),
        ({"ChargeCategory": "Usage", "CommitmentDiscountId": "sp-1", "CommitmentDiscountStatus": "Unused"}, "Usage"),
        ({"ChargeCategory": "Purchase", "CommitmentDiscountStatus": "Unused"}, "Usage"),
        ({"ChargeCategory": "Usage", "ChargeClass": "Correction"}, "Adjustment"),
        ({"ChargeCategory": "Tax", "ChargeClass": "Correction", "CommitmentDiscountStatus": "Unused"}, "Adjustment"),
    ],
)
def test_the_type_follows_category_class_and_commitment(changes: dict[str, str], kind: str) -> None:
    assert columns(**changes)["lineitem/type"] == kind
    assert [row.columns["lineitem/type"] for row in read(table(FOCUS, focus(**changes))).rows] == ["Usage", kind]


@pytest.mark.parametrize("null", ["", "NULL", "null"])
def test_null_is_blank_however_it_is_written(null: str) -> None:
    mapped = columns(SubAccountId=null, RegionId=null, EffectiveCost=null, ConsumedUnit=null, SkuId=null, Tags=null)
    assert mapped["resource/account"] == "111122223333"
    assert mapped["resource/region"] == "no-region"
    assert mapped.keys().isdisjoint({"cost/amortized_cost", "usage/units", "action/usage_type", "resource/tag:team"})


def test_the_first_of_two_columns_that_is_not_null_counts_in_each_row() -> None:
    done = read(table(focus(SkuMeter="Hours"), FOCUS, focus(SubAccountId="NULL")))
    assert [row.columns["action/usage_type"] for row in done.rows] == ["Hours", "SKU1", "SKU1"]
    assert [row.columns["resource/account"] for row in done.rows] == ["444455556666", "444455556666", "111122223333"]


@pytest.mark.parametrize(
    ("kind", "whole", "written"),
    [
        ("Instance", "arn:aws:ec2:eu-west-1:1:instance/i-1", "Instance/arn_aws_ec2_eu-west-1_1_instance_i-1"),
        ("Virtual machine", "/subscriptions/1/vm", "Virtual machine/subscriptions_1_vm"),
        ("a/b:c", "i-1", "a_b_c/i-1"),
        ("NULL", "arn:aws:s3:::b", "s3/b"),
        ("", "i-1", "resource/i-1"),
    ],
)
def test_a_resource_is_its_type_and_its_whole_id(kind: str, whole: str, written: str) -> None:
    assert columns(ResourceType=kind, ResourceId=whole)["resource/id"] == written


def test_a_start_within_an_hour_is_floored_and_the_end_is_compared_with_what_stood() -> None:
    assert columns(ChargePeriodStart="2026-02-04T00:30:00Z")["time/usage_start"] == "2026-02-04T00:00:00Z"
    row = fault(table(focus(ChargePeriodStart="2026-02-04T00:30:00Z", ChargePeriodEnd="2026-02-04T00:29:00Z")))
    assert row.error == "ChargePeriodEnd is before ChargePeriodStart"


def test_a_time_without_an_offset_is_utc() -> None:
    assert columns(ChargePeriodStart="2026-02-04 00:00:00")["time/usage_start"] == "2026-02-04T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"BilledCost": "NULL"}, "BilledCost is empty"),
        ({"BilledCost": "1,5"}, "BilledCost has a comma"),
        ({"EffectiveCost": "x"}, "EffectiveCost is not a plain decimal"),
        ({"ListCost": "x"}, "ListCost is not a plain decimal"),
        ({"ConsumedQuantity": "x"}, "ConsumedQuantity is not a plain decimal"),
        ({"ChargePeriodStart": "NULL"}, "ChargePeriodStart is empty"),
        ({"ChargePeriodStart": "2026-03-01T00:00:00Z"}, "ChargePeriodStart is not in the month"),
        ({"ChargeCategory": ""}, "ChargeCategory is empty"),
        ({"ChargeCategory": "Refund"}, "ChargeCategory is 'Refund'"),
        ({"BillingCurrency": "NULL"}, "BillingCurrency is empty"),
        ({"ResourceId": ":"}, "ResourceId has no name"),
        ({"ResourceId": ""}, "ResourceId is empty, and the row has tags"),
        ({"Tags": "team=core"}, "Tags is no JSON"),
        ({"Tags": "[1]"}, "Tags is no JSON object"),
        ({"Tags": '{"a": {}}'}, "a list or an object as the value of 'a'"),
        ({"Tags": '{"a": 1, "a": 2}'}, "the key 'a' twice"),
        ({"Tags": '{"Cost Center": "1"}'}, "'Cost Center' has white space"),
        ({"Tags": "[" * 100_000}, "Tags is no JSON"),
        ({"Tags": '{"a": "\\ud83d"}'}, "half of a character"),
    ],
)
def test_a_faulty_row_is_rejected_under_the_names_of_its_file(changes: dict[str, str], said: str) -> None:
    done = read(table(*[FOCUS] * 5, focus(**changes), *[FOCUS] * 5))
    [row] = done.rejected
    assert said in row.error
    assert row.line == 7
    assert len(done.rows) == 10


def test_another_currency_refuses_the_whole_file_with_the_line() -> None:
    refusal = refused(table(*[FOCUS] * 5, focus(BillingCurrency="EUR"), FOCUS))
    assert "EUR" in refusal.reason
    assert refusal.line == 7


@pytest.mark.parametrize("name", ["ChargePeriodStart", "BilledCost", "BillingCurrency", "ChargeCategory"])
def test_a_file_without_a_mandatory_column_is_refused(name: str) -> None:
    assert name in refused(table({key: value for key, value in FOCUS.items() if key != name})).reason


def test_all_other_columns_may_be_missing() -> None:
    names = ("ChargePeriodStart", "BilledCost", "BillingCurrency", "ChargeCategory")
    assert only(table({name: FOCUS[name] for name in names})).columns == {
        "time/usage_start": "2026-02-04T00:00:00Z",
        "cost/cost": "1.25",
        "cost/discounted_cost": "1.25",
        "lineitem/type": "Usage",
        "resource/region": "no-region",
    }


def test_quotes_around_every_cell_change_nothing() -> None:
    tagged = focus(Tags='{"a": "x, y", "b": "\\"q\\""}', ChargeDescription='say "hi", twice')
    rows = [FOCUS, tagged, focus(SubAccountId="")]
    assert read(quoted(*rows)).rows == read(table(*rows)).rows


def test_tags_are_texts_numbers_and_true() -> None:
    text = '{"b": 1.10, "a": "x", "c": true, "d": null, "e": "", "f": " "}'
    assert list(read_tags(text).items()) == [
        ("resource/tag:a", "x"),
        ("resource/tag:b", "1.10"),
        ("resource/tag:c", "true"),
    ]


@given(st.dictionaries(st.text(st.sampled_from("abAB_.:/=+-@"), min_size=1), st.text(max_size=5), max_size=5))
def test_any_map_of_tags_is_kept(tags: dict[str, str]) -> None:
    kept = {f"resource/tag:{key}": value for key, value in tags.items() if value.strip()}
    assert read_tags(json.dumps(tags)) == kept


@settings(max_examples=200)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                name: st.just(value) | HOSTILE if name != "BillingCurrency" else st.just(value)
                for name, value in FOCUS.items()
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_row_is_either_accepted_or_rejected(rows: list[dict[str, str]]) -> None:
    """Fuzzed: nothing that stands in a cell ends the reading of the others."""
    done = read(table(*rows, FOCUS))
    assert len(done.all) == len(rows) + 1
    assert done.all[-1] == done.rows[-1]
