"""Where a model comes from: a library of models, ONNX, an import path or the own zoo; and its weights."""

from distill.models.loaded import Loaded as Loaded
from distill.models.sources import load_model as load_model
from distill.models.weights import save_student as save_student
from distill.models.weights import student_folder as student_folder
