"""The rows that meet in a coupled loss: this process's own, or those of all processes."""

from torch import Tensor

from distill.losses.kinds import Scope
from distill.numerics import gather_rows, widen


def meeting_rows(student: Tensor, teacher: Tensor, scope: Scope) -> tuple[Tensor, Tensor, slice]:
    """All rows of the student (with gradient) and of the teacher (without), and where this process's own rows lie in
    them.

    student, teacher: (B, ...) of this process. With scope "global" the rows of all processes come back in rank order;
    each process returns the shares of its own rows only, so that the sum over processes divided by the count over
    processes is the value on the whole batch.
    """
    student, teacher = widen(student), widen(teacher.detach())
    if scope == "local":
        return student, teacher, slice(0, len(student))
    all_student, start = gather_rows(student)
    all_teacher, _ = gather_rows(teacher)
    return all_student, all_teacher, slice(start, start + len(student))
