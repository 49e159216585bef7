"""Matching finds identity and kept blocks, says which head joins a pair or why none can, and gives lines that run."""

import copy
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from distill.batch import Batch
from distill.cli import run_command
from distill.data import Digits
from distill.heads import Conv1x1, Grid, Linear, Regressor
from distill.losses import HiddenState, Hint
from distill.match import Candidate, Match, Rule, candidates, join, match, pairs_of, similarities
from distill.match.padding import text_gram_vector
from distill.models.cifar import resnet8, resnet20
from distill.models.cifar_resnet import ResNet
from distill.plan import Term, connect
from distill.similarity import CkaSums, gram_vector
from tests.commands import PAIR, TEACHER
from tests.processes import run_processes
from tests.tiny import net


def images(n: int = 12, channels: int = 1, side: int = 8) -> Tensor:
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(n))


class Odd(nn.Module):
    """A model with all that is not worth comparing; what is, is `stem`, `body.0`, `body` and `neck`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Identity()
        self.stem = nn.Conv2d(1, 3, 3)
        self.drop = nn.Dropout(0.5)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)))
        self.unused = nn.Linear(2, 2)
        self.positions = nn.Embedding(1, 4)
        self.inner = nn.Conv2d(4, 4, 1)
        self.inplace = nn.ReLU(inplace=True)
        self.neck = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.drop(self.stem(self.first(x)))) + self.positions(torch.tensor([0])).view(1, 4, 1, 1)
        return self.head(self.flat(self.neck(self.inplace(self.inner(x)))))


def names(model: nn.Module, inputs: Tensor, most: int = 24) -> list[str]:
    return [one.tap for one in candidates(model, inputs, most=most)]


def test_candidates_are_what_is_worth_comparing() -> None:
    """Dropped: the input, dropout, the container's last child, one row for all, changed in place, flattened, logits."""
    model = Odd()
    assert names(model, images()) == ["stem", "body.0", "body", "inplace", "neck"]
    assert model.training and model.body[1].training


def test_candidates_have_shapes_and_know_what_goes_below_zero() -> None:
    found = {one.tap: one for one in candidates(Odd(), images())}
    assert found["stem"] == Candidate("stem", (3, 6, 6), False)
    assert found["inplace"] == Candidate("inplace", (4, 4, 4), True)


def test_candidates_see_what_the_model_sees() -> None:
    small = candidates(Odd(), images(), view=nn.AvgPool2d(2, stride=1))
    assert small[0].shape == (3, 5, 5)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (24, "conv1 bn1 relu layer1.0 layer1.1 layer1 layer2.0 layer2.1 layer2 layer3.0 layer3.1 layer3 avgpool"),
        (12, "conv1 bn1 relu layer1 layer2 layer3 avgpool"),
        (4, "conv1 relu layer2 avgpool"),
        (1, "conv1"),
    ],
)
def test_outer_modules_come_first_and_what_does_not_fit_is_thinned_evenly(most: int, expected: str) -> None:
    assert names(resnet20(10, 1, width=2), images(), most) == expected.split()


def test_a_model_without_anything_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no module whose output could be compared"):
        candidates(nn.Linear(3, 2), torch.randn(4, 3))
    with pytest.raises(ValueError, match="most is a number of taps of at least 1, got 0"):
        candidates(Odd(), images(), most=0)


class Words(nn.Module):
    """A model of several named inputs, which gives a mapping without logits."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.encoder = nn.Linear(4, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        hidden = self.encoder(self.embedding(input_ids)) * attention_mask[..., None]
        return {"last_hidden_state": hidden, "pooled": hidden.mean(1)}


def test_a_batch_may_be_a_mapping_with_more_than_the_model_takes() -> None:
    ids = torch.arange(40).view(8, 5) % 9
    batch = {"input_ids": ids, "attention_mask": torch.ones(8, 5), "token_type_ids": ids}
    assert candidates(Words(), batch) == (Candidate("encoder", (5, 6), False),)
    assert match(Words(), Words(), [batch]).pairs[0].student.shape == (5, 6)


def tap(*shape: int, nonnegative: bool = True) -> Candidate:
    return Candidate("layer", shape, nonnegative)


def table(students: int, teachers: int, seed: int) -> list[list[float]]:
    return torch.rand(students, teachers, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize(("students", "teachers"), [(5, 4), (6, 7), (3, 8), (4, 4), (1, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_with_an_arrow_for_every_tap_the_pairs_are_the_best_of_trying_all(
    students: int, teachers: int, seed: int
) -> None:
    values, arrows = table(students, teachers, seed), min(students, teachers)
    rows, columns = itertools.combinations(range(students), arrows), itertools.combinations(range(teachers), arrows)
    every = (zip(*both, strict=True) for both in itertools.product(rows, columns))
    best = max(sum(values[s][t] for s, t in pairs) for pairs in every)
    found = pairs_of("auto", values, arrows)
    assert sum(values[s][t] for s, t in found) == pytest.approx(best, abs=1e-4)
    for (s, t), (next_s, next_t) in itertools.pairwise(found):
        assert s < next_s and t < next_t


@pytest.mark.parametrize("arrows", [1, 2, 3, 5])
def test_fewer_arrows_are_some_of_all_one_in_each_equal_share(arrows: int) -> None:
    values = [[value + (s == t) for t, value in enumerate(row)] for s, row in enumerate(table(6, 9, 4))]
    every, found = pairs_of("auto", values, 6), pairs_of("auto", values, arrows)
    assert every == tuple((s, s) for s in range(6))
    shares = [-(-r * 6 // arrows) for r in range(arrows + 1)]
    assert [sum(pair in every[a:b] for pair in found) for a, b in itertools.pairwise(shares)] == [1] * arrows


def test_a_share_gives_the_pair_that_stands_out_and_not_the_most_alike_one() -> None:
    """Two layers alike to both others, 0.99 against 0.98, say less than one that only one other is like."""
    values = [[0.99, 0.98, 0.2], [0.98, 0.985, 0.3], [0.2, 0.3, 0.8]]
    assert pairs_of("auto", values, 3) == ((0, 0), (1, 1), (2, 2))
    assert pairs_of("auto", values, 1) == ((2, 2),)
    values[2][2] = 0.4  # it still stands out, but hardly resembles anything
    assert pairs_of("auto", values, 1) == ((0, 0),)


def test_equal_numbers_of_taps_are_not_forced_beside_each_other() -> None:
    """The student's second tap is its first once more, so the teacher's second is left out: 0.9 is far below 0.99.

    Of the three pairs that are left the first share has two, of which the second stands out by 0.2.
    """
    values = [[1.0, 0.9, 0.5, 0.4], [0.99, 0.9, 0.5, 0.4], [0.5, 0.6, 0.9, 0.7], [0.4, 0.5, 0.7, 0.95]]
    assert pairs_of("auto", values, 2) == ((2, 2), (3, 3))


def test_taps_that_no_head_joins_take_no_part_where_there_are_others() -> None:
    never = 100.0
    values, costs = [[0.9, 0.5], [0.4, 0.9]], [[never, 0.0], [never, never]]
    assert pairs_of("auto", values, 1, costs) == ((0, 1),)


def test_equal_sums_are_settled_for_even_pairs() -> None:
    assert pairs_of("auto", [[1.0] * 8] * 4, 4) == ((0, 1), (1, 3), (2, 5), (3, 7))


def test_a_cost_is_made_up_for_by_similarity_or_not() -> None:
    assert pairs_of("auto", [[0.9, 0.85]], 1, [[0.1, 0.0]]) == ((0, 1),)
    assert pairs_of("auto", [[0.9, 0.75]], 1, [[0.1, 0.0]]) == ((0, 0),)
    assert pairs_of("auto", [[0.9, 0.75]], 1, [[100.0, 100.0]]) == ((0, 0),)


def test_no_head_costs_more_than_resizing_and_that_more_than_one_resolution() -> None:
    free, resized, never = (join(tap(4, 8, 8), other).cost for other in (tap(6, 8, 8), tap(6, 4, 4), tap(7)))
    assert free == join(tap(5), tap(5)).cost == 0 < resized < 1 < never / 24


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("uniform", [(1, 3), (3, 7), (5, 11)]),
        ("last", [(3, 9), (4, 10), (5, 11)]),
        ("skip", [(1, 3), (3, 7), (5, 11)]),
    ],
)
def test_rules_of_six_layers_and_twelve(rule: Rule, expected: list[tuple[int, int]]) -> None:
    """TinyBERT's m ↦ 2m and PKD's every second and last, on three arrows; counted from 0."""
    assert list(pairs_of(rule, table(6, 12, 0), 3)) == expected


def test_where_layers_do_not_divide_uniform_ends_at_the_last_and_skip_keeps_its_stride() -> None:
    assert [t for _, t in pairs_of("uniform", table(3, 11, 0), 3)] == [3, 7, 10]
    assert [t for _, t in pairs_of("skip", table(3, 11, 0), 3)] == [2, 5, 8]


def test_wrong_rules_and_too_many_arrows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no rule 'unifrom' for matching layers\. Nearest: uniform"):
        pairs_of("unifrom", table(2, 2, 0), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"arrows=3 does not fit 2 taps of the student and 5 of the teacher.* 1 to 2"):
        pairs_of("auto", table(2, 5, 0), 3)
    with pytest.raises(ValueError, match=r"arrows=0 .*Ask for 1 to 2"):
        pairs_of("last", table(2, 5, 0), 0)


@pytest.mark.parametrize(
    ("student", "teacher", "head", "written", "parameters"),
    [
        (tap(4, 8, 8), tap(4, 8, 8), None, "", 0),
        (tap(4, 8, 8), tap(6, 8, 8), Conv1x1(), "Conv1x1()", 4 * 6 + 2 * 6),
        (tap(4, 8, 8), tap(6, 4, 4), Regressor(), "Regressor()", 4 * 6 * 9 + 2 * 6),
        (tap(4, 8, 8), tap(6, 4, 4, nonnegative=False), Regressor(relu=False), "Regressor(relu=False)", 228),
        (tap(5), tap(7), Linear(), "Linear()", 5 * 7 + 7),
        (tap(9, 5), tap(9, 7), Linear(), "Linear()", 5 * 7 + 7),
        (tap(50, 5), tap(197, 7), Grid(), "Grid()", 2 * (5 * 7 + 7)),
        (tap(5, 8, 8), tap(197, 7), Grid(), "Grid()", 2 * (5 * 7 + 7)),
        (tap(4, 2, 2), tap(4, 8, 8), Grid(), "Grid()", 4 * 4 + 4),
    ],
)
def test_each_pair_gets_its_head(
    student: Candidate, teacher: Candidate, head: object, written: str, parameters: int
) -> None:
    found = join(student, teacher)
    assert (found.head, found.written, found.parameters, found.possible) == (head, written, parameters, True)


@pytest.mark.parametrize(
    ("student", "teacher", "reason"),
    [
        (tap(7, 8), tap(197, 8), "no grid joins tokens 7x8 and tokens 197x8"),
        (tap(4, 8, 8), tap(7, 8), "no grid joins a map 4x8x8 and tokens 7x8"),
        (tap(8), tap(4, 8, 8), "no head joins an embedding 8 and a map 4x8x8"),
    ],
)
def test_what_no_head_can_join_is_said_and_not_raised(student: Candidate, teacher: Candidate, reason: str) -> None:
    found = join(student, teacher)
    assert (found.head, found.parameters, found.reason, found.possible) == (None, 0, reason, False)


def test_sizing_heads_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    join(tap(4, 8, 8), tap(6, 4, 4))
    assert torch.equal(before, torch.get_rng_state())


def test_similarities_are_those_of_the_features() -> None:
    """Against features read by hand, over two batches of different sizes, with dropout off."""
    torch.manual_seed(0)
    teacher, student = net(width=3, dropout=0.5).train(), net(width=2).eval()
    batches = [images(12), images(7)]
    taps = [Candidate("layer1", (), True), Candidate("layer2", (), True)]
    found = similarities(teacher, student, batches, teacher_taps=taps, student_taps=taps[1:])
    assert teacher.training and teacher.dropout.training and not student.training
    teacher.eval()
    sums = CkaSums.zeros(1, 2)
    with torch.no_grad():
        for x in batches:
            ours, first = student.layer2(student.layer1(x)), teacher.layer1(x)
            sums = sums + CkaSums.of_batch([ours], [first, teacher.layer2(first)])
    torch.testing.assert_close(torch.tensor(found.cka, dtype=torch.float64), sums.cka(), rtol=1e-6, atol=1e-6)


def test_a_tap_that_is_not_finite_is_named() -> None:
    student = net()
    student.layer2[0].weight.data.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"Tap 'layer2\.0' of the student gives values that are not finite"):
        match(net(), student, [images()])


def test_matching_needs_batches_of_four() -> None:
    with pytest.raises(ValueError, match="got none"):
        match(net(), net(), [])
    with pytest.raises(ValueError, match="needs 4 examples or more in each, got 3"):
        match(net(), net(), [images(3)])


Pixels = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> Pixels:
    train = Digits().load(0, None).train
    examples = [train[(0, index)] for index in range(len(train))]
    pixels = torch.stack([example.image for example in examples]).float() / 255
    return (pixels - 0.3053) / 0.3759, torch.tensor([int(example.label) for example in examples])


@pytest.fixture(scope="module")
def trained(digits: Pixels) -> ResNet:
    """A ResNet-20 of width 8 after twelve epochs."""
    torch.manual_seed(0)
    model, (pixels, labels) = resnet20(10, 1, width=8), digits
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(12):
        for rows in torch.randperm(len(pixels))[:1024].split(64):
            loss = F.cross_entropy(model(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    assert (model(pixels).argmax(1) == labels).float().mean() > 0.97
    return model


def test_identity_is_found_whatever_the_number_of_arrows(trained: ResNet, digits: Pixels) -> None:
    batches = list(digits[0][:64].split(16))
    for arrows in (1, 2, 4, 7, 13):
        found = match(trained, copy.deepcopy(trained), batches, arrows=arrows)
        assert len(found.pairs) == arrows
        for pair in found.pairs:
            assert pair.student == pair.teacher and pair.cka == pytest.approx(1) and pair.joining.written == ""


def dropped(model: ResNet, random_numbers: random.Random) -> tuple[ResNet, dict[str, str]]:
    """The model without a block in some of its stages, and {tap: that of the whole model} of all its candidates."""
    student, origin = copy.deepcopy(model), {name: name for name in ("conv1", "bn1", "relu", "avgpool")}
    for name in ("layer1", "layer2", "layer3"):
        stage = getattr(student, name)
        left_out = random_numbers.choice([None, *range(1, len(stage))])  # the first block changes the shape
        kept = [number for number in range(len(stage)) if number != left_out]
        for place, number in enumerate(kept):
            own = name if number == kept[-1] else f"{name}.{place}"
            origin[own] = name if number == len(stage) - 1 else f"{name}.{number}"
        setattr(student, name, nn.Sequential(*(stage[number] for number in kept)))
    return student, origin


def test_the_kept_blocks_are_found_after_ten_random_drops(trained: ResNet, digits: Pixels) -> None:
    """With an arrow for every tap of the student, at least nine in ten are right."""
    batches = [digits[0][first:512:4] for first in range(4)]
    right, arrows = 0, 0
    for seed in range(10):
        student, origin = dropped(trained, random.Random(seed))
        found = match(trained, student, batches, arrows=len(candidates(student, batches[0])))
        right += sum(origin[pair.student.tap] == pair.teacher.tap for pair in found.pairs)
        arrows += len(found.pairs)
    assert arrows > 100
    assert right / arrows >= 0.9


def test_the_kept_blocks_are_found_by_the_default_too(trained: ResNet, digits: Pixels) -> None:
    """Four arrows on four batches of 16, as the command has them, and spread over the whole depth."""
    batches = [digits[0][first:64:4] for first in range(4)]
    right, depths = 0, []
    for seed in range(10):
        student, origin = dropped(trained, random.Random(seed))
        found = match(trained, student, batches)
        assert len(found.pairs) == 4
        right += sum(origin[pair.student.tap] == pair.teacher.tap for pair in found.pairs)
        order = found.similarities.student
        depths += [order.index(found.pairs[-1].student) / (len(order) - 1)]
    assert right / 40 >= 0.9
    assert sum(depths) / 10 >= 0.75


def pair_of_nets() -> Match:
    torch.manual_seed(0)
    return match(resnet8(10, 1, width=8), resnet8(10, 1, width=4), [images(16), images(8)], arrows=3, most=8)


def test_the_lines_are_terms_that_connect() -> None:
    found = pair_of_nets()
    plan = {}
    for line in found.lines:
        plan |= eval("{" + line + "}", {"Term": Term, "Hint": Hint, "Conv1x1": Conv1x1, "Regressor": Regressor})
    assert plan == found.terms() and list(plan) == ["match1", "match2", "match3"]
    batch = Batch(images(4), torch.zeros(4, dtype=torch.long), torch.arange(4))
    _, learner = connect(resnet8(10, 1, width=8), resnet8(10, 1, width=4), plan, batch)
    for pair in found.pairs:
        heads = learner.heads[pair.name].parameters() if pair.joining.head else ()
        assert sum(parameter.numel() for parameter in heads) == pair.joining.parameters


def test_a_match_is_written_as_json() -> None:
    found = pair_of_nets()
    values = json.loads(json.dumps(found.to_json()))
    assert values["lines"] == list(found.lines)
    assert [one["student"] for one in values["pairs"]] == [pair.student.tap for pair in found.pairs]
    assert torch.tensor(values["cka"]).shape == (len(values["student"]), len(values["teacher"]))
    assert values["student"][0] == {"tap": "conv1", "shape": [4, 8, 8], "nonnegative": False}


class Tokens(nn.Module):
    """Patches as tokens, as a vision transformer has them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Unfold((2, 4), stride=(2, 4))
        self.mix = nn.Linear(8, 6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.patches(x)).mean(1))


def test_pairs_that_no_head_joins_stand_in_table_and_lines_by_name() -> None:
    found = match(resnet8(10, 1, width=4), Tokens(), [images()], rule="last", arrows=1)
    assert found.terms() == {}
    why = "no grid joins tokens 8x6 and a map 16x1x1"
    assert found.lines == (f'# match1: student="mix", teacher="avgpool" can\'t meet, {why}',)
    assert f"none: {why}" in list(found.table().columns[6].cells)


def match_of_a_process() -> Match:
    Accelerator(cpu=True)
    return pair_of_nets()


@pytest.mark.slow
def test_two_processes_match_as_one(tmp_path: Path) -> None:
    expected = pair_of_nets()
    for found in run_processes(match_of_a_process, 2, tmp_path):
        assert found.lines == expected.lines
        torch.testing.assert_close(torch.tensor(found.similarities.cka), torch.tensor(expected.similarities.cka))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Runs `distill plan pair.py` with more words, in a folder with that recipe."""
    (tmp_path / "pair.py").write_text(PAIR)
    (tmp_path / "teacher.py").write_text(TEACHER)
    monkeypatch.chdir(tmp_path)
    return lambda words: run_command(["plan", "pair.py", "--teacher.weights", "none", *words.split()])


def test_plan_match_prints_writes_and_draws_beside_the_folder_of_the_run(
    plan: Callable[[str], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--match --arrows 2 --batches 3") == 0
    out = capsys.readouterr().out
    values = json.loads((tmp_path / "runs" / "pair.match.json").read_text())
    assert values["rule"] == "auto" and len(values["pairs"]) == 2
    assert values["data"] == "3 batches of 16 training examples"
    assert all(line in out for line in values["lines"])
    assert "Written: runs/pair.match.json and runs/pair.match.png" in out
    picture = (tmp_path / "runs" / "pair.match.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["pair.match.json", "pair.match.png"]


def test_plan_match_takes_a_rule(plan: Callable[[str], int], tmp_path: Path) -> None:
    assert plan("--match last --arrows 1") == 0
    values = json.loads((tmp_path / "runs" / "pair.match.json").read_text())
    assert values["rule"] == "last"
    assert values["pairs"][0]["student"] == values["student"][-1]["tap"] == "avgpool"


def test_a_student_that_knows_nothing_yet_is_said_to(
    plan: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--match --arrows 1") == 0
    assert "random weights" not in capsys.readouterr().out
    assert plan("--match --arrows 1 --initialize none --controls none") == 0
    assert "Note: the student has random weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--arrows 3", "--arrows has no effect without --match. Add it, or leave this out."),
        ("--match best", "argument --match: invalid choice: 'best' "),
        ("--match --batches 0", "batches is at least 1, got 0."),
        ("--match --batches 500", "CKA needs 4 examples in each batch, and 1079 training examples do not fill 500 "),
        ("--match --arrows 99", "arrows=99 does not fit "),
        ("--match --root pair.py", "pair.py can't be written: "),
    ],
)
def test_a_mistake_is_one_line(
    plan: Callable[[str], int], capsys: pytest.CaptureFixture[str], words: str, line: str
) -> None:
    assert plan(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"distill: {line}") and error.count("\n") == 1


def test_a_recipe_without_a_teacher_has_nothing_to_match(
    plan: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["plan", "teacher.py", "--match"]) == 2
    assert "has no teacher, so there are no layers to match" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named_before_anything_is_done(
    plan: Callable[[str], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: Callable[[str], object] = lambda name: None  # noqa: E731
    monkeypatch.setattr("distill.picture.figure.find_spec", found)
    assert plan("--match") == 2
    captured = capsys.readouterr()
    assert "pip install 'distill[report]'" in captured.err and captured.out == ""


def texts(length: int) -> dict[str, Tensor]:
    """Sixteen texts of one to six tokens, padded with what the seed of the length draws."""
    drawn = torch.Generator().manual_seed(0)
    ids, lengths = torch.randint(1, 9, (16, 6), generator=drawn), torch.randint(1, 7, (16,), generator=drawn)
    lengths[0] = 6
    mask = torch.arange(length) < lengths[:, None]
    padding = torch.randint(1, 9, (16, length), generator=torch.Generator().manual_seed(length))
    padded = torch.where(mask, torch.nn.functional.pad(ids, (0, length - 6)), padding)
    return {"input_ids": padded, "attention_mask": mask.long()}


class Reader(nn.Module):
    """A text classifier that reads each token by itself, so that padding cannot reach its own tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(9, width)
        self.encoder = nn.Linear(width, width + 1)
        self.head = nn.Linear(width + 1, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden, mask = self.encoder(self.words(input_ids)), attention_mask[..., None]
        return self.head((hidden * mask).sum(1) / mask.sum(1))


def test_padding_of_texts_says_nothing_however_long_and_whatever_it_holds() -> None:
    torch.manual_seed(0)
    teacher, student = Reader(5), Reader(3)
    short, long = (match(teacher, student, [texts(length)]).similarities.cka for length in (6, 11))
    torch.testing.assert_close(torch.tensor(short), torch.tensor(long), rtol=1e-4, atol=1e-5)
    unmasked = {**texts(11), "attention_mask": torch.ones(16, 11)}
    other = match(teacher, student, [unmasked]).similarities.cka
    assert (torch.tensor(other) - torch.tensor(long)).abs().max() > 1e-2


def some_texts() -> tuple[Tensor, Tensor]:
    """Tokens of sixteen texts of three to nine tokens, and their mask."""
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 10, (16,), generator=drawn)
    return torch.randn(16, 9, 5, generator=drawn), torch.arange(9) < lengths[:, None]


def test_texts_without_padding_are_compared_as_all_else() -> None:
    tokens, mask = some_texts()
    whole = torch.ones_like(mask)
    torch.testing.assert_close(text_gram_vector(tokens, whole), gram_vector(tokens), rtol=1e-5, atol=1e-5)
    assert torch.equal(text_gram_vector(tokens[:, 0], mask), gram_vector(tokens[:, 0]))


def test_what_only_the_position_decides_is_no_likeness() -> None:
    """Features that hold their position and nothing else are the same for all texts, wherever those end."""
    tokens, mask = some_texts()
    positions = torch.where(mask[..., None], 7 + torch.randn(9, 5).expand(16, 9, 5), tokens)
    assert torch.equal(text_gram_vector(positions, mask), torch.zeros(120, dtype=torch.float64))


def test_lengths_alone_make_no_layers_alike() -> None:
    """Independent tokens of the same texts, beside a large vector for each position, have CKA near 0."""
    mask, sums = some_texts()[1], CkaSums.zeros(1, 1)
    drawn = torch.Generator().manual_seed(1)
    places = 3 * torch.randn(2, 1, 9, 50, generator=drawn)
    for _ in range(20):
        one, other = torch.randn(2, 16, 9, 50, generator=drawn) + places
        sums = sums + CkaSums.of_grams([text_gram_vector(one, mask)], [text_gram_vector(other, mask)])
    assert abs(float(sums.cka())) < 0.1
    zeroed = CkaSums.of_batch([one * mask[..., None]], [other * mask[..., None]])
    assert float(zeroed.cka()) > 0.8


def test_tokens_of_padded_texts_meet_under_a_loss_that_knows_the_mask() -> None:
    found = match(Reader(5), Reader(3), [texts(6)], rule="last", arrows=2)
    assert found.lines[1] == '"match2": Term(HiddenState(), student="encoder", teacher="encoder", head=Linear()),'
    assert all(term.loss == HiddenState() for term in found.terms().values())
    refused = match(Reader(5), Reader(3), [texts(6)], arrows=1, loss=Hint())
    assert refused.pairs[0].joining.reason == "Hint would count the padding of texts"


def test_a_loss_that_refuses_the_features_joins_nothing() -> None:
    found = match(net(width=3), net(width=2), [images()], arrows=1, loss=HiddenState())
    assert found.terms() == {}
    assert found.pairs[0].joining.reason.startswith("HiddenState compares tokens (B, T, D) of equal shape")


class Side(nn.Module):
    """What one model sees of texts that carry the tokens of two."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.prefix = f"{side}."

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix(self.prefix): x for name, x in inputs.items() if name.startswith(self.prefix)}


def test_tokens_of_two_tokenizers_are_compared_but_not_joined() -> None:
    one, other = texts(6), texts(6)
    other["input_ids"] = other["input_ids"].flip(1)
    both = {f"student.{k}": x for k, x in one.items()} | {f"teacher.{k}": x for k, x in other.items()}
    views = {"student_view": Side("student"), "teacher_view": Side("teacher")}
    found = match(Reader(5), Reader(3), [both], arrows=1, **views)
    assert found.pairs[0].joining.reason == "the two models cut a text into other tokens"


def test_a_match_is_read_again_as_it_was_written() -> None:
    found = pair_of_nets()
    assert Match.from_json(json.loads(json.dumps(found.to_json())), Hint()) == found


def test_layers_of_a_bert_are_found_once_and_joined_by_linear_maps() -> None:
    bert = pytest.importorskip("tests.tiny_bert")
    torch.manual_seed(0)
    teacher, student = bert.bert(layers=4, width=16), bert.bert(layers=2, width=12)
    mask = torch.arange(7) < torch.randint(3, 8, (8, 1), generator=torch.Generator().manual_seed(0))
    ids = torch.randint(5, 40, (8, 7), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": ids * mask, "attention_mask": mask.long(), "token_type_ids": torch.zeros_like(ids)}
    taps = [one.tap for one in candidates(teacher, batch)]
    assert {"bert.embeddings", *(f"bert.encoder.layer.{n}" for n in range(3)), "bert.encoder"} <= set(taps)
    assert not [tap for tap in taps if "dropout" in tap or "token_type" in tap or "position" in tap]
    found = match(teacher, student, [batch], rule="uniform")
    for pair in found.pairs:
        tokens = len(pair.teacher.shape) == 2
        assert pair.joining.head == Linear() and pair.loss == (HiddenState() if tokens else Hint())
    assert {len(pair.teacher.shape) for pair in found.pairs} == {1, 2}
