import math
from dataclasses import replace

import pytest

from distill.report import judge
from distill.report.verdict import explain
from tests.report.made import ALIKE, HELPED, HURT, one_seed, report


def test_helped_by_hand():
    # Plain (90, 91, 92) % and transferred (94, 95, 96) %: see test_welch_by_hand; the ratio is 4 / 0.8165 = 4.899.
    verdict = judge(report(HELPED))
    assert verdict is not None and verdict.word == "helped"
    assert (verdict.low, verdict.high) == pytest.approx((0.0173304, 0.0626696), abs=1e-6)
    assert verdict.ratio == pytest.approx(math.sqrt(24))
    assert verdict.sentence == (
        "The transfer helped: test accuracy +4.00 points, 95% interval +1.73 to +6.27 over 3 seeds, "
        "4.9 standard errors."
    )


def test_hurt_is_the_mirror_of_helped():
    verdict = judge(report(HURT))
    assert verdict is not None and verdict.word == "hurt"
    assert verdict.ratio == pytest.approx(-math.sqrt(24))
    assert verdict.sentence.startswith("The transfer hurt: test accuracy -4.00 points, 95% interval -6.27 to -1.73")


def test_an_interval_that_holds_zero_is_no_difference():
    # Half a point with an error of 0.8165 points.
    verdict = judge(report(ALIKE))
    assert verdict is not None and verdict.word == "no difference"
    assert verdict.low < 0 < verdict.high
    assert "made no difference that this run can tell from chance: test accuracy +0.50 points" in verdict.sentence


def test_more_than_two_standard_errors_are_no_help_while_the_interval_holds_zero():
    # With 4 degrees of freedom the interval reaches 2.776 errors far: 2.2 points at an error of 0.8165 are 2.69.
    verdict = judge(report({"plain": (0.90, 0.91, 0.92), "transferred": (0.922, 0.932, 0.942)}))
    assert verdict is not None and verdict.ratio is not None
    assert verdict.ratio > 2 and verdict.word == "no difference"


def test_seeds_that_all_give_the_same_have_no_ratio_and_it_is_said():
    same = judge(report({"plain": (0.9, 0.9, 0.9), "transferred": (0.9, 0.9, 0.9)}))
    assert same is not None and (same.word, same.ratio) == ("no difference", None)
    assert same.sentence.endswith("Every seed gave the same value, so the interval has no width.")
    better = judge(report({"plain": (0.9, 0.9), "transferred": (0.95, 0.95)}))
    assert better is not None and (better.word, better.ratio) == ("helped", None)


def test_one_seed_is_judged_by_its_test_examples_and_says_so():
    verdict = judge(one_seed(gained=30, lost=10, same=160))
    assert verdict is not None and verdict.word == "helped"
    assert verdict.difference == pytest.approx(0.1)
    assert "over the 200 test examples of one seed" in verdict.sentence
    assert verdict.sentence.endswith("It says nothing about other seeds.")


def test_one_seed_with_few_flips_or_as_many_each_way_is_no_difference():
    for flips in ((4, 0, 196), (20, 20, 160), (0, 0, 200)):
        verdict = judge(one_seed(*flips))
        assert verdict is not None and verdict.word == "no difference"


def test_one_seed_can_hurt():
    verdict = judge(one_seed(gained=10, lost=30, same=160))
    assert verdict is not None and verdict.word == "hurt"


def test_without_the_plain_control_nobody_can_say():
    alone = report({"transferred": (0.94, 0.95)})
    assert judge(alone) is None
    assert "nobody can say" in explain(alone) and 'controls=("plain",)' in explain(alone)


def test_the_initialized_control_shows_what_came_beyond_the_weights():
    both = report({**HELPED, "initialized": (0.94, 0.95, 0.96)})
    verdict = judge(both, "initialized")
    assert verdict is not None and verdict.word == "no difference"
    assert verdict.sentence.startswith("Beyond the teacher's weights, learning from it made no difference")
    assert judge(report(HELPED), "initialized") is None


def test_one_seed_without_answers_is_not_judged():
    blind = report({"plain": (0.9,), "transferred": (0.95,)})
    assert judge(blind) is None
    assert "from one seed" in explain(blind) and "repeats=3" in explain(blind)


def test_a_quality_that_is_not_a_number_is_not_judged():
    broken = report({"plain": (0.9, math.nan), "transferred": (0.94, 0.95)})
    assert judge(broken) is None
    assert "not a finite number" in explain(broken)


def test_a_run_without_a_teacher_has_nothing_to_judge():
    assert explain(report({"plain": (0.9, 0.91)})) == "Trained without a teacher: there is no transfer to judge."


def test_a_report_refuses_outcomes_that_do_not_belong_together():
    good = report(HELPED)
    with pytest.raises(ValueError, match="at least one outcome"):
        replace(good, outcomes=())
    with pytest.raises(ValueError, match="no arm 'distilled'"):
        replace(good, outcomes=(replace(good.outcomes[0], arm="distilled"),))
    with pytest.raises(ValueError, match=r"got \(0, 1\) in transferred"):
        replace(good, outcomes=good.outcomes[:-1])
    with pytest.raises(ValueError, match="has_teacher=False does not go with arms plain, transferred"):
        replace(good, has_teacher=False)
    with pytest.raises(ValueError, match="has_teacher=True does not go with arms plain"):
        replace(good, outcomes=good.of("plain"))
    with pytest.raises(ValueError, match="headline 'auroc' is not measured in teacher"):
        replace(good, headline="auroc")
    with pytest.raises(ValueError, match="better when higher, got 'nll'"):
        replace(good, headline="nll")
    with pytest.raises(ValueError, match="the same in all, got accuracy in plain"):
        replace(good, outcomes=(*good.outcomes[1:], replace(good.outcomes[0], test={"accuracy": 0.9})))
