import torch

from distill.data.draws import drawn_from, generator, seed_of


def test_a_seed_depends_on_every_part_of_the_key_and_on_nothing_else():
    keys = [("a", seed, epoch, index) for seed in range(3) for epoch in range(10) for index in range(100)]
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [seed_of(*key) for key in keys]
    # A fixed value: blake2b of "('a', 0, 1, 2)", so that a run can be repeated on another machine and version.
    assert seed_of("a", 0, 1, 2) == 4816943188926479112


def test_drawing_from_a_key_leaves_the_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    got = [torch.rand(2)]
    with drawn_from("x", 1):
        inside = torch.rand(3)
    got.append(torch.rand(2))
    assert torch.equal(torch.cat(got), expected)
    with drawn_from("x", 1):
        assert torch.equal(torch.rand(3), inside)
    with drawn_from("x", 2):
        assert not torch.equal(torch.rand(3), inside)


def test_an_error_inside_leaves_the_generator_as_it_was_too():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    try:
        with drawn_from("x", 1):
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_repeats_for_its_key():
    assert torch.equal(torch.randperm(50, generator=generator("p", 1)), torch.randperm(50, generator=generator("p", 1)))
    assert not torch.equal(
        torch.randperm(50, generator=generator("p", 1)), torch.randperm(50, generator=generator("p", 2))
    )
