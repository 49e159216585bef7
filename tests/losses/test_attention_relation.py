import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import AttentionRelation
from distill.losses.relations.tokens.attention_relation import RELATIONS
from tests.losses.masked import assert_padding_has_no_influence
from tests.losses.rows_tokens import projections

Tokens = tuple[Tensor, Tensor, Tensor]


def loss_of(loss: AttentionRelation, student: Tokens, teacher: Tokens, mask: Tensor | None = None) -> Tensor:
    size = len(student[0])
    return loss(student, teacher, Batch(torch.zeros(size), torch.zeros(size), torch.arange(size), mask))


def some_tokens(*shape: int) -> Tokens:
    query, key, value = torch.randn(3, *shape, dtype=torch.float64)
    return query, key, value


def reference(student: Tokens, teacher: Tokens, mask: Tensor, relations: tuple[str, ...], heads: int) -> Tensor:
    """The formula of each example, pair by pair, on its own tokens alone."""
    losses = []
    for example in range(len(mask)):
        own = mask[example]
        total = torch.zeros(()).double()
        for name, head in product(relations, range(heads)):
            rows = []
            for model in (student, teacher):
                of = dict(zip("qkv", model, strict=True))
                width = model[0].shape[2] // heads
                part = slice(head * width, (head + 1) * width)
                first, second = (of[letter][example, own, part] for letter in name)
                rows.append((first @ second.T / math.sqrt(width)).softmax(1))
            total = total + (rows[1] * (rows[1] / rows[0]).log()).sum()
        losses.append(total / (heads * own.sum()))
    return torch.stack(losses)


def test_value_of_two_tokens() -> None:
    # One head of width 1. Teacher's values (0, 1): scores (0, 0) and (0, 1), rows (½, ½) and (1, e) / (1 + e).
    # Student's (0, 0): both rows (½, ½). KL of the first row is 0, of the second ln 2 − H(p) with p = e / (1 + e):
    # 0.693147 − 0.582203 = 0.110944, over the length 2.
    zeros, values = torch.zeros(1, 2, 1).double(), torch.tensor([[[0.0], [1.0]]]).double()
    loss = AttentionRelation(relations=("vv",), heads=1)
    p = math.e / (1 + math.e)
    divergence = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert divergence == pytest.approx(0.110944, abs=1e-6)
    value = loss_of(loss, (zeros, zeros, zeros), (zeros, zeros, values)).item()
    assert value == pytest.approx(divergence / 2)


@pytest.mark.parametrize(("relations", "heads"), [(("qq", "kk", "vv"), 1), (("qk", "vv"), 2), (RELATIONS, 2)])
def test_it_is_the_formula_head_by_head_with_widths_that_differ(relations: tuple[str, ...], heads: int) -> None:
    student, teacher = some_tokens(3, 5, 4), some_tokens(3, 5, 6)
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
    expected = reference(student, teacher, mask, relations, heads)
    torch.testing.assert_close(loss_of(AttentionRelation(relations, heads), student, teacher, mask), expected)


def test_relations_add() -> None:
    student, teacher = some_tokens(3, 5, 4), some_tokens(3, 5, 4)
    parts = [loss_of(AttentionRelation((name,), 2), student, teacher) for name in RELATIONS]
    torch.testing.assert_close(loss_of(AttentionRelation(RELATIONS, 2), student, teacher), sum(parts))
    assert len(RELATIONS) == 9


def test_a_head_that_rotates_its_vectors_keeps_its_relations() -> None:
    student, teacher = some_tokens(3, 5, 4), some_tokens(3, 5, 4)
    rotation = torch.block_diag(*(torch.linalg.qr(torch.randn(2, 2).double()).Q for _ in range(2)))
    query, key, value = (x @ rotation for x in student)
    torch.testing.assert_close(
        loss_of(AttentionRelation(heads=2), (query, key, value), teacher),
        loss_of(AttentionRelation(heads=2), student, teacher),
    )


def test_padding_has_no_influence() -> None:
    assert_padding_has_no_influence(AttentionRelation(heads=2), projections(6))
    assert_padding_has_no_influence(AttentionRelation(relations=("qk", "kv"), heads=1), projections(6))


def test_a_hole_in_the_mask_is_left_out_too() -> None:
    inputs = projections(2)
    holed = replace(inputs, mask=torch.tensor([[True, False, True, True]] * 2))
    kept = torch.tensor([0, 2, 3])
    student, teacher = (tuple(x[:, kept] for x in value) for value in (inputs.student, inputs.teacher))
    loss = AttentionRelation(heads=2)
    torch.testing.assert_close(
        loss(holed.student, holed.teacher, holed.batch),
        loss(student, teacher, Batch(torch.zeros(2), torch.zeros(2), torch.arange(2))),
    )


def test_an_example_without_any_token_has_loss_and_gradient_zero() -> None:
    student = tuple(x.requires_grad_() for x in some_tokens(2, 3, 4))
    mask = torch.tensor([[True] * 3, [False] * 3])
    loss = loss_of(AttentionRelation(heads=2), student, some_tokens(2, 3, 4), mask)  # type: ignore[arg-type]
    loss.sum().backward()
    assert loss[0] > 0
    assert loss[1] == 0
    for x in student:
        assert x.grad is not None
        assert x.grad[0].abs().max() > 0
        assert x.grad[1].abs().max() == 0


def test_heads_that_do_not_divide_are_refused_with_both_widths() -> None:
    with pytest.raises(ValueError, match="AttentionRelation") as error:
        loss_of(AttentionRelation(), some_tokens(1, 2, 24), some_tokens(1, 2, 32))
    assert str(error.value) == (
        "AttentionRelation takes widths that 12 heads divide, got student [(1, 2, 24), (1, 2, 24), (1, 2, 24)] and "
        "teacher [(1, 2, 32), (1, 2, 32), (1, 2, 32)]. Set heads to a divisor of both widths, 24 and 32."
    )


@pytest.mark.parametrize("count", [1, 2])
def test_other_than_query_key_and_value_is_refused(count: int) -> None:
    tokens = some_tokens(1, 2, 4)
    with pytest.raises(ValueError, match=r"AttentionRelation compares tuples \(query, key, value\)"):
        loss_of(AttentionRelation(heads=2), tokens[:count], tokens)  # type: ignore[arg-type]
