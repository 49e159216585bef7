from dataclasses import replace

from distill.report import Report, from_json, markdown, to_json
from distill.report.spent import explain_time, time_table
from tests.report.made import HELPED, report
from tests.report.test_render import cells_of, shown

# 10 seconds: shares can be read off.
BALANCED = {
    "teacher": 2.0, "forward": 2.5, "losses": 0.3, "backward": 3.6, "optimizer": 0.6, "wait": 0.4,
    "checkpoints": 0.02, "evaluation": 0.4, "other": 0.18,
}  # fmt: skip


def spending(spent: dict[str, float], arm: str = "transferred") -> Report:
    """A report of which one arm, all its seeds, spent this."""
    made = report(HELPED)
    outcomes = [replace(one, spent=spent, seconds=10.0) if one.arm == arm else one for one in made.outcomes]
    return replace(made, outcomes=tuple(outcomes))


def test_the_time_of_the_students_training_is_told_the_most_first():
    line = (
        "Time of training (transferred, 10.0 s): backward 36%, student forward 25%, teacher 20%, optimizer 6%, "
        "data wait 4%, evaluation 4%, losses 3%, other 2%."
    )
    made = spending(BALANCED)
    assert explain_time(made) == [line]
    assert line in " ".join(shown(made, 80).split())
    assert line in markdown(made)


def test_markdown_has_a_row_for_each_arm_of_which_it_is_known():
    made = spending(BALANCED)
    part = markdown(made).split("## Where the time went")[1]
    assert cells_of(part.split("## Made with")[0]) == [
        [
            "time of training", "teacher %", "student forward %", "losses %", "backward %", "optimizer %",
            "data wait %", "checkpoints %", "evaluation %", "other %", "seconds",
        ],
        ["---", *["---:"] * 10],
        ["transferred", "20.0", "25.0", "3.0", "36.0", "6.0", "4.0", "0.2", "4.0", "1.8", "10.0"],
    ]  # fmt: skip


def test_what_sticks_out_is_said_and_what_does_not_is_not():
    """By hand: of 10 seconds 0.5 are 5 %, and 3 are 30 %, which is not yet more."""
    waiting = {"wait": 0.5, "forward": 9.5}
    assert len(explain_time(spending(waiting))) == 1
    assert explain_time(spending({"wait": 1.2, "forward": 8.8}))[1:] == [
        "Data is waited for during 12% of the time: raise workers=..., or cache the data."
    ]
    assert len(explain_time(spending({"teacher": 3.0, "forward": 7.0}))) == 1
    assert explain_time(spending({"teacher": 4.0, "forward": 2.0, "backward": 3.0, "losses": 1.0}))[1:] == [
        "The teacher takes 40% of the time, 0.8 times what the student's forward and backward take."
    ]
    # It is about the run's own student, not about its controls.
    assert explain_time(spending({"wait": 5.0, "forward": 5.0}, arm="plain")) == []


def test_a_report_in_which_it_is_not_known_says_nothing():
    made = report(HELPED)
    assert explain_time(made) == [] and time_table(made)[1] == []
    assert "time" not in shown(made).lower().split("ms: median")[0] and "Where the time went" not in markdown(made)


def test_it_comes_back_from_json():
    made = spending(BALANCED)
    assert from_json(to_json(made)).outcomes[-1].spent == BALANCED
