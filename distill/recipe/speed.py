"""What makes a step cheaper without changing what is learned from."""

from dataclasses import dataclass, replace
from typing import Literal

from distill.recipe.model import Model

Compiled = Literal["none", "student", "teacher", "both"]


@dataclass(frozen=True)
class Speed:
    """Settings that make a step cheaper; what they gain depends on models and machine, so `distill plan --tune` tries.

    None of them changes weights, their names or what a run saves, but each changes in which order and to how many
    digits numbers are added, so that a run with one ends elsewhere within rounding.

    channels_last: hold kernels and maps with the channels innermost, which half precision gains most from. Sums are
        taken in another order.
    compile: which model is compiled (torch.compile, inductor), as one graph with its taps; heads and losses stay as
        they are. The first step takes the time to compile, and so do the first batch of another size and the first
        pass of losses over micro-batches. Operations are fused and rounded less often; dropout draws the same numbers.
    cuda_graphs: what is compiled is recorded once for each size of a batch and then replayed as a whole (CUDA graphs),
        on copies of its inputs and answers: saves the launches of small kernels, and takes memory for each size.
    fold_teacher: put the teacher's batch norms into the convolutions before them, on a copy. Its answers change by
        rounding alone; the tap of such a convolution is refused, since it would read the norm's output.
    teacher_precision: number format of the teacher's forward pass, whatever the student's; none for the student's.
        bf16 keeps the weights of convolutions and linear layers in bf16 on a copy; the answers, given on as float32,
        change by bf16's rounding, about 3 digits. float32 keeps them exact beside a student in half precision.
    """

    channels_last: bool = False
    compile: Compiled = "none"
    cuda_graphs: bool = False
    fold_teacher: bool = False
    teacher_precision: Literal["float32", "bf16"] | None = None

    @property
    def compiles_student(self) -> bool:
        """Whether the student is compiled."""
        return self.compile in ("student", "both")

    @property
    def compiles_teacher(self) -> bool:
        """Whether the teacher is compiled."""
        return self.compile in ("teacher", "both")

    @property
    def of_teacher(self) -> tuple[str, ...]:
        """The settings that act on the teacher alone, as a command line names and gives them."""
        given = {
            "compile=" + repr(self.compile): self.compiles_teacher,
            "fold_teacher": self.fold_teacher,
            f"teacher_precision={self.teacher_precision!r}": self.teacher_precision is not None,
        }
        return tuple(name for name, there in given.items() if there)

    def without_teacher(self) -> "Speed":
        """The same for the student alone."""
        compile: Compiled = "student" if self.compiles_student else "none"
        return replace(
            self,
            compile=compile,
            cuda_graphs=self.cuda_graphs and self.compiles_student,
            fold_teacher=False,
            teacher_precision=None,
        )


def check_speed(
    speed: Speed, *, teacher: Model | None, shard_teacher: bool, precision: str | None, compares: bool
) -> None:
    """Refuse what has no effect in a recipe, or does not go with its other settings.

    teacher: None where no term asks one. compares: whether gradients of terms are compared at one layer.

    Raises:
        ValueError: named by its setting.
    """
    for setting in speed.of_teacher:
        if teacher is None:
            raise ValueError(f"speed.{setting} has no effect where no term asks a teacher. Leave it out.")
        if teacher.is_onnx:
            raise ValueError(f"speed.{setting} has no effect on {teacher.source}, an ONNX file. Leave it out.")
        if shard_teacher:
            raise ValueError(f"speed.{setting} can't be had with shard_teacher. Leave one of them out.")
    if speed.teacher_precision == "float32" == precision:
        raise ValueError("speed.teacher_precision='float32' has no effect beside precision='float32'. Leave it out.")
    if speed.cuda_graphs and speed.compile == "none":
        raise ValueError("speed.cuda_graphs has no effect without speed.compile. Set that too, or leave it out.")
    if speed.compiles_student and compares:
        raise ValueError(
            f"speed.compile={speed.compile!r} keeps too little for a second gradient, which balance=GradNorm() and "
            "compare_gradients_every take. Leave one of them out."
        )
