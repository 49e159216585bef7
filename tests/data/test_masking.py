"""Hidden tokens: how many, which never, and that the draw depends on its key alone."""

from typing import Any

import pytest
import torch
from torch import Tensor

from distill.data.masking import mask_tokens

MASK, PADDING, SPECIAL, VOCABULARY = 3, 0, (0, 1, 2, 3), 1000
IDS = torch.arange(4, 104)


def masked(ids: Tensor = IDS, **changes: Any) -> tuple[Tensor, Tensor]:
    settings = {"mask_id": MASK, "vocabulary": VOCABULARY, "special": SPECIAL, "seed": 0, "epoch": 0, "index": 0}
    return mask_tokens(ids, **{**settings, **changes})


def test_the_share_of_the_tokens_is_chosen_and_their_labels_are_what_they_were() -> None:
    shown, labels = masked()
    chosen = labels != -100
    assert chosen.sum() == 15
    assert torch.equal(labels[chosen], IDS[chosen])
    assert torch.equal(shown[~chosen], IDS[~chosen])
    assert masked(share=0.4)[1].ne(-100).sum() == 40
    assert masked(share=1)[1].equal(IDS)


def test_of_the_chosen_tokens_eight_tenths_become_the_mask_one_tenth_others_and_one_tenth_stay() -> None:
    hidden = other = stayed = 0
    for index in range(400):
        shown, labels = masked(index=index)
        chosen = labels != -100
        now, before = shown[chosen], labels[chosen]
        hidden += int((now == MASK).sum())
        stayed += int((now == before).sum())
        other += int(((now != MASK) & (now != before)).sum())
    assert hidden + other + stayed == 6000
    # Standard errors of 6000 draws: 0.005 for 0.8, 0.004 for 0.1.
    assert hidden / 6000 == pytest.approx(0.8, abs=0.02)
    assert other / 6000 == pytest.approx(0.1, abs=0.016)
    assert stayed / 6000 == pytest.approx(0.1, abs=0.016)


def test_every_token_is_chosen_equally_often() -> None:
    counts = torch.stack([masked(index=index)[1] != -100 for index in range(1000)]).sum(0)
    assert counts.float().mean() == 150
    # A binomial of 1000 draws at 0.15 has deviation 11.3: no one of 100 tokens is 5 of them away.
    assert (counts - 150).abs().max() < 56


def test_special_tokens_and_padding_are_never_chosen() -> None:
    ids = torch.tensor([1, 50, 51, 52, 2, PADDING, PADDING])
    for index in range(200):
        shown, labels = masked(ids, index=index, share=0.9)
        assert labels[[0, 4, 5, 6]].eq(-100).all()
        assert torch.equal(shown[[0, 4, 5, 6]], ids[[0, 4, 5, 6]])
        assert (labels != -100).sum() == 3  # 0.9 of three, rounded


def test_a_short_text_hides_one_token_and_one_of_special_tokens_none() -> None:
    assert (masked(torch.tensor([1, 50, 51, 2]))[1] != -100).sum() == 1
    ids = torch.tensor([1, 2])
    shown, labels = masked(ids)
    assert torch.equal(shown, ids)
    assert labels.eq(-100).all()


def test_the_same_key_gives_the_same_draw_and_another_seed_epoch_or_index_another() -> None:
    before, state = masked()[0], torch.random.get_rng_state()
    torch.rand(3)
    assert torch.equal(masked()[0], before)
    torch.random.set_rng_state(state)
    for change in ({"seed": 1}, {"epoch": 1}, {"index": 1}):
        assert not torch.equal(masked(**change)[0], before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_text_itself_stays_as_it_was() -> None:
    ids = IDS.clone()
    masked(ids)
    assert torch.equal(ids, IDS)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"^mask_tokens takes a share .* got {share}\.$"):
        masked(share=share)
