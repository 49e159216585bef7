"""Digits: a teacher that is no PyTorch module, an ONNX file, into a ResNet-8 of half width.

Any ONNX file does whose input is images (batch, channels, height, width) with a free batch and whose output is logits
of the same classes; its own tensors are taps too, once they are named in `outputs`. From TensorFlow it comes with
`tf2onnx --inputs-as-nchw`. One to try this with is the network of digits_teacher.py, trained first, and written by:

    import torch
    from distill.models import load_model

    source = "distill.models.cifar:resnet8x4"
    model = load_model(source, num_classes=10, in_channels=1, weights="runs/digits-teacher").model
    torch.onnx.export(
        model.eval(), (torch.zeros(2, 1, 8, 8),), "teacher.onnx", input_names=["image"], output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
    )
"""

from distill import KD, SGD, Cosine, CrossEntropy, Digits, Model, Recipe, Term, main

recipe = Recipe(
    name="onnx-teacher",
    data=Digits(validation=0.3, test=0.5),
    teacher=Model("onnx:teacher.onnx"),
    student=Model("distill.models.cifar:resnet8", arguments={"width": 8}),
    plan={
        "task": Term(CrossEntropy(), weight=0.1),
        "kd": Term(KD(temperature=4.0), weight=0.9),
    },
    optimizer=SGD(lr=0.2, momentum=0.9, weight_decay=5e-4),
    schedule=Cosine(warmup_epochs=0.5),
    epochs=16,
    batch_size=64,
    controls=("plain",),
)

if __name__ == "__main__":
    main(recipe)
