"""Tokenizers: a model's own, or one trained on a run's texts."""

from distill.tokenize.fit import check_fit as check_fit
from distill.tokenize.kinds import Encoded as Encoded
from distill.tokenize.kinds import Tokenizer as Tokenizer
from distill.tokenize.kinds import TrainsTokenizer as TrainsTokenizer
from distill.tokenize.load import load_tokenizer as load_tokenizer
from distill.tokenize.trained import WordPiece as WordPiece
from distill.tokenize.trained import Words as Words
