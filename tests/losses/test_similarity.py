import math

import torch

from distill.batch import Batch
from distill.losses import SimilarityPreserving

BATCH = Batch(torch.zeros(2), torch.zeros(2).long(), torch.arange(2))


def test_value_of_two_examples() -> None:
    # Student: G = I. Teacher (1, 0), (1, 1): G = [[1, 1], [1, 2]], rows (1, 1) / √2 and (1, 2) / √5. Unit rows a, b
    # differ by ‖a − b‖² = 2 − 2 a·b, and each share is half of that: 1 − 1/√2 and 1 − 2/√5.
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = SimilarityPreserving()(student, teacher, BATCH)
    torch.testing.assert_close(loss, torch.tensor([1 - 1 / math.sqrt(2), 1 - 2 / math.sqrt(5)]))


def test_maps_count_as_their_flattened_features() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 6)
    flat = SimilarityPreserving()(student.flatten(1), teacher.flatten(1), BATCH)
    torch.testing.assert_close(SimilarityPreserving()(student, teacher, BATCH), flat)


def test_the_scale_of_a_model_does_not_count() -> None:
    student, teacher = torch.randn(2, 4), torch.randn(2, 5)
    loss = SimilarityPreserving()
    torch.testing.assert_close(loss(3 * student, 0.2 * teacher, BATCH), loss(student, teacher, BATCH))


def test_a_dead_example_has_a_small_gradient() -> None:
    # F.normalize would pass a gradient of 1e12 to the row of zeros.
    student = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    SimilarityPreserving()(student, torch.randn(2, 3), BATCH).sum().backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 10
