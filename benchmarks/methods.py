"""The methods that quality.py compares: each as a plan for a ResNet-20 into a ResNet-8, with its paper's weights.

Weights and layers are those of `distill losses NAME`, in the literature's CIFAR-100 setting where it has one; nothing
was tuned here. A rise of the weight over 20 of the literature's 240 epochs is a twelfth of ours.
"""

from distill import (
    CRD,
    DIST,
    DKD,
    KD,
    NKD,
    NST,
    OFA,
    PKT,
    VID,
    AttentionTransfer,
    Connector,
    Contrast,
    Conv1x1,
    CorrelationCongruence,
    CrossEntropy,
    Hint,
    InterChannel,
    Overhaul,
    Ramp,
    Regressor,
    ReviewFusion,
    ReviewHCL,
    RKDAngle,
    RKDDistance,
    SimilarityPreserving,
    StageClassifier,
    Term,
    VIDRegressor,
)
from distill.heads import Head
from distill.losses import Loss
from distill.plan import Plan

STAGES = ("layer1", "layer2", "layer3")
TASK = Term(CrossEntropy())


def plans(examples: int, epochs: int) -> dict[str, Plan]:
    """{method: plan}, for a training split of so many examples."""
    ramp = Ramp(epochs / 12)
    return {
        "KD": {"task": Term(CrossEntropy(), weight=0.1), "kd": Term(KD(), weight=0.9)},
        "LSKD": {
            "task": Term(CrossEntropy(), weight=0.1),
            "kd": Term(KD(temperature=2.0, standardize=True), weight=9.0),
        },
        "DKD": {"task": TASK, "dkd": Term(DKD(nontarget_weight=2.0), schedule=ramp)},
        "NKD": {"task": TASK, "nkd": Term(NKD())},
        "DIST": {"task": TASK, "dist": Term(DIST(), weight=2.0)},
        "OFA": {
            "task": TASK,
            "logits": Term(OFA()),
            **{tap: Term(OFA(), student=tap, teacher="logits", head=StageClassifier()) for tap in STAGES},
        },
        "Hint (FitNets)": {"task": TASK, "hint": at("layer2", Hint(), 100.0, Regressor())},
        "AttentionTransfer": {"task": TASK, **everywhere(AttentionTransfer(), 1000.0)},
        "NST": {"task": TASK, **everywhere(NST(), 50.0)},
        "VID": {"task": TASK, **everywhere(VID(), 1.0, VIDRegressor())},
        "Overhaul": {"task": TASK, **{f"overhaul{stage}": overhaul(stage) for stage in (1, 2, 3)}},
        "ReviewKD": {
            "task": TASK,
            "review": Term(ReviewHCL(), 1.0, student=STAGES, teacher=STAGES, head=ReviewFusion(), schedule=ramp),
        },
        "SimilarityPreserving": {"task": TASK, "samples": at("layer3", SimilarityPreserving(), 3000.0)},
        "RKD": {
            "task": TASK,
            "distance": at("embedding", RKDDistance(), 25.0),
            "angle": at("embedding", RKDAngle(), 50.0),
        },
        "PKT": {"task": TASK, "samples": at("embedding", PKT(), 30000.0)},
        "CorrelationCongruence": {"task": TASK, "samples": at("embedding", CorrelationCongruence(), 1.0)},
        # A third of the bank as negatives, as 16,384 are of 50,000.
        "CRD": {
            "task": TASK,
            "contrast": at("embedding", CRD(), 0.8, Contrast(examples=examples, negatives=round(examples / 3))),
        },
        "InterChannel": {"task": TASK, "channels": at("layer3", InterChannel(), 2.5, Conv1x1())},
    }


def at(tap: str, loss: Loss, weight: float, head: Head | None = None) -> Term:
    return Term(loss, weight=weight, student=tap, teacher=tap, head=head)


def everywhere(loss: Loss, weight: float, head: Head | None = None) -> Plan:
    return {tap: at(tap, loss, weight, head) for tap in STAGES}


def overhaul(stage: int) -> Term:
    """The last map of a stage before its ReLU; the weight is halved for each stage before the last."""
    return Term(
        Overhaul(),
        weight=1e-3 / 2 ** (3 - stage),
        student=f"layer{stage}.0.relu2:input",
        teacher=f"layer{stage}.2.relu2:input",
        head=Connector(norm=f"layer{stage}.2.bn2"),
    )
