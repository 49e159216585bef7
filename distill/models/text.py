"""Small networks over words, for students that are no transformers: `distill.models.text:NAME`.

Every factory takes `num_classes` and `vocab_size`. The networks take the tokens of a batch of texts, `input_ids` (B, T)
with those of a text first and the filling behind, and `attention_mask` (B, T), 1 for a token and 0 for filling, which
changes nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PackedLSTM(nn.Module):
    """A bidirectional LSTM whose backward direction begins at each text's own last token."""

    def __init__(self, in_features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(in_features, width, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Maps (B, T, in_features) to (B, T, 2 * width), zero behind a text's end; lengths are at least 1."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        hidden, _ = self.lstm(packed)
        tokens: Tensor = pad_packed_sequence(hidden, batch_first=True, total_length=x.shape[1])[0]
        return tokens


class BiLSTM(nn.Module):
    """Word embeddings, a bidirectional LSTM, its maximum over the words, a hidden layer and the classifier.

    "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks" (Tang, Lu, Liu, Mou, Vechtomova and Lin,
    2019, arXiv:1903.12136, section 3.1). Departure: the maximum over the words stands for the last state of either
    direction, so that a word counts however far it is from the end of a long text.

    Taps: `words` and `lstm` give tokens (B, T, D), `hidden` and `embedding` one vector a text.
    """

    def __init__(
        self, num_classes: int, vocab_size: int, *, width: int, layers: int, embedding: int, dropout: float
    ) -> None:
        super().__init__()
        _check("bilstm", dropout, num_classes, vocab_size, width, layers, embedding)
        self.words = nn.Embedding(vocab_size, embedding)
        self.lstm = PackedLSTM(embedding, width, layers, dropout)
        self.hidden = nn.Linear(2 * width, width)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, num_classes) of texts (B, T)."""
        lengths = _lengths(attention_mask)
        tokens = self.lstm(self.words(input_ids), lengths)
        text = _maximum(tokens, lengths)
        logits: Tensor = self.classifier(self.dropout(self.relu(self.hidden(text))))
        return logits


class WordCNN(nn.Module):
    """Word embeddings, convolutions over a few neighbouring words, the maximum of each over the text, the classifier.

    "Convolutional Neural Networks for Sentence Classification" (Kim, 2014, arXiv:1408.5882, section 2). Departure:
    windows may begin before the text's first word and end behind its last one, so that texts shorter than a window have
    some.

    Taps: `words` gives tokens (B, T, D), `embedding` one vector a text.
    """

    def __init__(
        self,
        num_classes: int,
        vocab_size: int,
        *,
        width: int,
        kernels: tuple[int, ...],
        embedding: int,
        dropout: float,
    ) -> None:
        super().__init__()
        _check("word_cnn", dropout, num_classes, vocab_size, width, embedding, len(kernels), *kernels)
        self.words = nn.Embedding(vocab_size, embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, width, kernel, padding=kernel - 1) for kernel in kernels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width * len(kernels), num_classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (B, num_classes) of texts (B, T)."""
        lengths = _lengths(attention_mask)
        tokens = self.words(input_ids) * attention_mask.unsqueeze(-1)
        maxima = []
        for convolution in self.convolutions:
            windows = F.relu(convolution(tokens.mT)).mT
            # Window w holds the tokens from w - beyond to w: the last with a token of the text is length - 1 + beyond.
            beyond = windows.shape[1] - tokens.shape[1]
            maxima.append(_maximum(windows, lengths + beyond))
        logits: Tensor = self.classifier(self.dropout(torch.cat(maxima, 1)))
        return logits


def bilstm(
    num_classes: int, vocab_size: int, width: int = 128, layers: int = 1, embedding: int = 128, dropout: float = 0.1
) -> BiLSTM:
    """A BiLSTM of `layers` layers with `width` units in either direction; words are embedded in `embedding` numbers."""
    return BiLSTM(num_classes, vocab_size, width=width, layers=layers, embedding=embedding, dropout=dropout)


def word_cnn(
    num_classes: int,
    vocab_size: int,
    width: int = 100,
    kernels: tuple[int, ...] = (3, 4, 5),
    embedding: int = 128,
    dropout: float = 0.5,
) -> WordCNN:
    """A CNN with `width` convolutions over as many words as each of `kernels` says."""
    return WordCNN(num_classes, vocab_size, width=width, kernels=tuple(kernels), embedding=embedding, dropout=dropout)


def _lengths(attention_mask: Tensor) -> Tensor:
    """Tokens of each text, int64 (B,); a text of filling alone counts as one."""
    return attention_mask.long().sum(1).clamp(min=1)


def _maximum(tokens: Tensor, lengths: Tensor) -> Tensor:
    """The largest of each feature over a text's first `lengths` positions: (B, T, D) to (B, D)."""
    outside = torch.arange(tokens.shape[1], device=tokens.device) >= lengths[:, None]
    return tokens.masked_fill(outside.unsqueeze(-1), float("-inf")).amax(1)


def _check(network: str, dropout: float, *counts: int) -> None:
    if min(counts) < 1:
        raise ValueError(f"{network} needs counts of at least 1, got {min(counts)}. Check its arguments.")
    if not 0 <= dropout < 1:
        raise ValueError(f"{network} needs dropout in [0, 1), got {dropout}.")
