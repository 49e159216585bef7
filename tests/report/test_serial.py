import json
import math
from dataclasses import replace

import pytest

from distill.report import Flips, from_json, judge, markdown, summarise, to_json
from tests.report.made import HELPED, HURT, cost, one_seed, report


def test_a_report_is_read_back_as_it_was_written():
    for made in (report(HELPED), report({"plain": (0.9,)}), report({"transferred": (0.9, 0.91)}, teacher=None)):
        assert from_json(to_json(made)) == made
        assert to_json(from_json(to_json(made))) == to_json(made)


def test_one_seed_keeps_its_verdict_without_the_answers():
    made = one_seed(gained=30, lost=10, same=160)
    read = from_json(to_json(made))
    assert "correct" not in to_json(made)
    assert read == replace(
        made,
        outcomes=tuple(replace(outcome, correct=None) for outcome in made.outcomes),
        flips={"plain": Flips(30, 10, 160)},
    )
    assert judge(read) == judge(made)
    assert markdown(read) == markdown(made)


def test_other_programs_find_what_is_derived_under_summary():
    summary = json.loads(to_json(report(HELPED)))["summary"]
    # The teacher's 98 % less plain's 91 % are 7 points, of which 4 were recovered.
    assert summary["recovered"] == pytest.approx(4 / 7)
    assert summary["verdict"]["word"] == "helped" and summary["verdict"]["ratio"] == pytest.approx(math.sqrt(24))
    assert summary["sentence"] == summary["verdict"]["sentence"]
    plain = summary["arms"]["plain"]["test"]["accuracy"]
    assert plain == {"mean": pytest.approx(0.91), "standard_deviation": pytest.approx(0.01), "count": 3}
    assert summary["ratios"]["latency_one"] == pytest.approx(4.0)


def test_what_is_derived_is_computed_anew_and_not_read():
    values = json.loads(to_json(report(HURT)))
    values["summary"]["verdict"]["word"] = "helped"
    values["summary"]["recovered"] = 1.0
    assert summarise(from_json(json.dumps(values))) == summarise(report(HURT))


def test_numbers_that_are_not_finite_are_null_and_come_back_as_nan():
    made = report(HELPED)
    broken = replace(made.outcomes[0], test={**made.outcomes[0].test, "nll": math.inf, "top5": math.nan})
    text = to_json(replace(made, outcomes=(broken, *made.outcomes[1:])))
    values = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert values["outcomes"][0]["test"]["nll"] is None
    read = from_json(text).outcomes[0].test
    assert math.isnan(read["nll"]) and math.isnan(read["top5"]) and read["accuracy"] == 0.9
    assert "| plain | 0 | 10.00% | 91.00% | 90.00% | 5.00% | - | - | 0.2500 |" in markdown(from_json(text))


def test_keys_are_sorted_and_text_is_the_same_each_time():
    text = to_json(report(HELPED))
    values = json.loads(text)
    assert list(values) == sorted(values)
    assert text == to_json(report(dict(reversed(HELPED.items())), outcomes=report(HELPED).outcomes))


def test_costs_without_multiply_adds_have_no_ratio():
    made = report(HELPED, student_cost=cost(multiply_adds=None))
    assert json.loads(to_json(made))["summary"]["ratios"]["multiply_adds"] is None
    assert from_json(to_json(made)) == made


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "Not JSON of a report"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "Not JSON of a report: the whole"),
        ("{}", "Not JSON of a report: name"),
    ],
)
def test_text_that_is_no_report_is_refused_in_one_line(text: str, names: str):
    with pytest.raises(ValueError, match=names) as refusal:
        from_json(text)
    assert "\n" not in str(refusal.value) and str(refusal.value).endswith("Take the report.json of a run.")


def test_a_wrong_value_is_named_by_its_path():
    values = json.loads(to_json(report(HELPED)))
    values["outcomes"][1]["seed"] = "first"
    with pytest.raises(ValueError, match=r"outcomes\.1\.seed"):
        from_json(json.dumps(values))
    values = json.loads(to_json(report(HELPED)))
    values["outcomes"][1]["arm"] = "distilled"
    with pytest.raises(ValueError, match="no arm 'distilled'"):
        from_json(json.dumps(values))
    values = json.loads(to_json(report(HELPED)))
    del values["teacher"]["test"]
    with pytest.raises(ValueError, match="teacher has metrics of test and validation, got validation"):
        from_json(json.dumps(values))
