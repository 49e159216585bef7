"""What a mask leaves out counts in no loss: either the loss reads the mask, or its plan refuses the tensors."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.batch import Batch
from distill.losses import (
    PKT,
    AttentionRelation,
    AttentionScores,
    CosineHint,
    CrossEntropy,
    HiddenState,
    Hint,
    LayerCKA,
    Loss,
    MaskedLanguageModel,
    PatientKD,
    RKDDistance,
    SimilarityPreserving,
    TokenCosine,
)
from distill.plan import Term, compare, connect
from distill.trainer.coupled import _joined_batch
from tests.tiny_bert import bert, spread, texts

MASK = torch.tensor([[True, True, True, False], [True, False, False, False], [True] * 4, [True, True, False, False]])
BATCH = Batch(torch.zeros(4), torch.zeros(4).long(), torch.arange(4), MASK)
TOKENS = torch.randn(4, 4, 8, generator=torch.Generator().manual_seed(0))
SCORES = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
IGNORANT = [Hint(), CosineHint(), SimilarityPreserving(), RKDDistance(), PKT(), LayerCKA()]


def losses_of(loss: Loss, student: object, teacher: object, batch: Batch = BATCH) -> Tensor:
    taps = {f"tap{n}": x for n, x in enumerate(teacher)} if isinstance(teacher, tuple) else {"tap0": teacher}
    term = Term(loss, student="any", teacher=tuple(taps) if isinstance(teacher, tuple) else "tap0")
    return compare({"term": term}, {"term": student}, taps, batch)["term"]  # type: ignore[dict-item, arg-type]


def named(loss: Loss) -> str:
    return type(loss).__name__


@pytest.mark.parametrize("loss", IGNORANT, ids=named)
def test_a_loss_that_would_count_padding_is_refused_tokens_with_the_way_out(loss: Loss) -> None:
    value = (TOKENS, TOKENS) if isinstance(loss, LayerCKA) else TOKENS
    with pytest.raises(ValueError, match="padding") as error:
        losses_of(loss, value, value)
    assert str(error.value) == (
        f"Term 'term': {named(loss)} would count the padding of texts, got (4, 4, 8) with a mask (4, 4). Use "
        "HiddenState() or TokenCosine(), tap one vector a text ('embedding'), or derive a loss of your own that reads "
        "batch.mask from distill.losses.HonoursMask."
    )


@pytest.mark.parametrize("loss", IGNORANT, ids=named)
def test_the_same_loss_takes_one_vector_a_text(loss: Loss) -> None:
    value = (TOKENS[:, 0], TOKENS[:, 1]) if isinstance(loss, LayerCKA) else TOKENS[:, 0]
    assert losses_of(loss, value, value).shape == (4,)


def test_tokens_of_a_batch_without_a_mask_are_no_concern() -> None:
    unmasked = Batch(BATCH.inputs, BATCH.labels, BATCH.index)
    assert losses_of(Hint(), TOKENS, TOKENS, unmasked).tolist() == [0.0] * 4


def test_tokens_of_one_side_are_enough_to_refuse() -> None:
    for student, teacher in ((TOKENS, TOKENS[:, 0]), (TOKENS[:, 0], TOKENS)):
        with pytest.raises(ValueError, match="SimilarityPreserving would count the padding"):
            losses_of(SimilarityPreserving(), student, teacher)


def test_scores_and_maps_over_words_are_refused_too() -> None:
    with pytest.raises(ValueError, match=r"Hint would count the padding of texts, got \(4, 2, 4, 4\) with"):
        losses_of(Hint(), SCORES, SCORES)


@pytest.mark.parametrize(
    ("loss", "value"),
    [
        (HiddenState(), TOKENS),
        (TokenCosine(), TOKENS),
        (PatientKD(), TOKENS),
        (AttentionScores(), SCORES),
        (AttentionRelation(heads=2), (TOKENS, TOKENS + 1, TOKENS - 1)),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_honours_the_mask_does_not_see_what_stands_in_the_padding(
    loss: Loss, value: Tensor | tuple[Tensor, ...]
) -> None:
    def changed(x: Tensor, by: float) -> Tensor:
        kept = MASK[:, :, None] if x.ndim == 3 else MASK[:, None, :, None] & MASK[:, None, None, :]
        return torch.where(kept, x, by)

    def all_changed(by: float) -> object:
        return changed(value, by) if isinstance(value, Tensor) else tuple(changed(x, by) for x in value)

    other = torch.flip(value, (0,)) if isinstance(value, Tensor) else tuple(x.flip(0) for x in value)
    once, again = losses_of(loss, all_changed(0.0), other), losses_of(loss, all_changed(9.0), other)
    torch.testing.assert_close(once, again)
    assert once.sum() > 0


def test_the_dry_run_refuses_before_the_first_batch() -> None:
    teacher, student = bert(), bert()
    tap = "bert.encoder.layer.1"
    plan = {"task": Term(CrossEntropy()), "hint": Term(Hint(), 1.0, tap, tap)}
    with pytest.raises(ValueError, match=r"^Term 'hint': Hint would count the padding of texts"):
        connect(teacher, student, plan, texts())


def test_a_batch_padded_further_has_the_same_losses() -> None:
    batch = texts()
    assert not isinstance(batch.inputs, Tensor) and batch.mask is not None
    longer = Batch(
        {name: F.pad(x, (0, 3)) for name, x in batch.inputs.items()},
        batch.labels,
        batch.index,
        F.pad(batch.mask, (0, 3)),
    )
    qkv = tuple(f"bert.encoder.layer.1.attention.self.{name}" for name in ("query", "key", "value"))
    scores, hidden = "bert.encoder.layer.0.attention.self:scores", "bert.encoder.layer.1"
    plan = {
        "task": Term(CrossEntropy()),
        "relations": Term(AttentionRelation(heads=4), 1.0, qkv, qkv),
        "scores": Term(AttentionScores(), 1.0, scores, scores),
        "hidden": Term(HiddenState(), 1.0, hidden, hidden),
        "cosine": Term(TokenCosine(), 1.0, hidden, hidden),
        "patient": Term(PatientKD(), 1.0, hidden, hidden),
        "distances": Term(RKDDistance(), 1.0, "embedding", "embedding"),
    }
    guide, learner = connect(spread(bert(), 1), spread(bert(), 2), plan, batch)
    learner.eval()
    assert guide is not None
    losses = [compare(plan, learner(one.inputs), guide(one.inputs), one) for one in (batch, longer)]
    for name in plan:
        torch.testing.assert_close(losses[0][name], losses[1][name], atol=1e-5, rtol=1e-4)
        assert losses[0][name].sum() > 1e-4, name


def test_micro_batches_of_different_lengths_join_with_their_masks() -> None:
    first, second = (
        Batch(TOKENS, BATCH.labels, BATCH.index, MASK),
        Batch(TOKENS, BATCH.labels, BATCH.index, MASK[:, :2]),
    )
    joined = _joined_batch([first, second]).mask
    assert joined is not None
    assert torch.equal(joined, torch.cat([MASK, F.pad(MASK[:, :2], (0, 2))]))


def test_masked_words_are_masked_by_their_labels() -> None:
    labels = torch.where(MASK, torch.arange(4), -100)
    batch = Batch(TOKENS, labels, BATCH.index, MASK)
    value = {"words": TOKENS}
    plan = {"words": Term(MaskedLanguageModel())}
    spoilt = {"words": torch.where(MASK[:, :, None], TOKENS, 9.0)}
    torch.testing.assert_close(compare(plan, value, {}, batch)["words"], compare(plan, spoilt, {}, batch)["words"])
