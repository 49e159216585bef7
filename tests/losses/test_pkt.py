import math

import torch
from torch import Tensor

from distill.batch import Batch
from distill.losses import PKT


def shares(student: Tensor, teacher: Tensor) -> Tensor:
    size = len(student)
    return PKT()(student, teacher, Batch(torch.zeros(size), torch.zeros(size).long(), torch.arange(size)))


def public_form(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula as it stands, one number at a time."""

    def chances(x: Tensor) -> Tensor:
        kernel = torch.tensor([[(torch.dot(a, b) / (a.norm() * b.norm()) + 1) / 2 for b in x] for a in x])
        return kernel / kernel.sum(1, keepdim=True)

    p, q = chances(teacher), chances(student)
    return (p * ((p + 1e-7) / (q + 1e-7)).log()).sum() / len(student) ** 2


def test_value_of_two_examples() -> None:
    # Student: cosine 0, kernel 1/2, chances (2/3, 1/3). Teacher: cosine −1, kernel 0, chances (1, 0). Each share is the
    # mean of 1 ln (1 / (2/3)) and 0.
    student, teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0], [-1.0]])
    torch.testing.assert_close(shares(student, teacher), torch.full((2,), math.log(1.5) / 2))


def test_equals_the_public_form() -> None:
    student, teacher = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64)
    expected = public_form(student, teacher)
    torch.testing.assert_close(shares(student, teacher).mean(), expected.double(), rtol=1e-6, atol=0)


def test_a_share_is_never_below_minus_epsilon() -> None:
    # With s = (P + ε) / (1 + Bε) a row's sum is least at P_s = P_t (1 + Bε) − ε: −Bε, for a row with one chance of 1.
    teacher = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    for angle in (0.0, 1e-4, 1e-3, 1e-2):
        student = torch.tensor([[1.0, 0.0], [-math.cos(angle), math.sin(angle)]], dtype=torch.float64)
        assert shares(student, teacher).min() >= -1e-7


def test_opposite_examples_stay_finite_in_float32() -> None:
    # Their cosine may round to below −1 by more than ε, as of some of these pairs, where the public code gives NaN.
    torch.manual_seed(0)
    for _ in range(50):
        one = torch.randn(1, 512)
        student = torch.cat([one, -one * torch.rand(1)]).requires_grad_()
        loss = shares(student, torch.randn(2, 3)).mean()
        loss.backward()
        assert loss.isfinite()
        assert student.grad is not None and student.grad.isfinite().all()


def test_a_dead_example_has_no_gradient() -> None:
    student = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, -1.0]], requires_grad=True)
    shares(student, torch.randn(3, 3)).sum().backward()
    assert student.grad is not None
    assert student.grad[0].abs().max() == 0


def test_the_norms_of_embeddings_do_not_count() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 4)
    torch.testing.assert_close(shares(student * (torch.rand(5, 1) + 0.1), teacher), shares(student, teacher))
