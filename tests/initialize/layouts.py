"""Small networks in the layouts of Hugging Face's BERT, RoBERTa and DistilBERT, with their tensors' names."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WORDS, POSITIONS = 11, 12


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    split = [each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value)]
    return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x), self.heads)


class Output(nn.Module):
    def __init__(self, inner: int, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inner, width), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, stream: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + stream)


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": Output(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = Output(inner, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Embeddings(nn.Module):
    def __init__(self, width: int, types: bool) -> None:
        super().__init__()
        self.word_embeddings, self.position_embeddings = nn.Embedding(WORDS, width), nn.Embedding(POSITIONS, width)
        self.token_type_embeddings = nn.Embedding(2, width) if types else None
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, words: Tensor) -> Tensor:
        x = self.word_embeddings(words) + self.position_embeddings.weight[: words.shape[1]]
        if self.token_type_embeddings is not None:
            x = x + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x)


class Bert(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, layers: int, classes: int = 3, name: str = "bert") -> None:
        super().__init__()
        body = nn.ModuleDict()
        body["embeddings"] = Embeddings(width, types=True)
        body["encoder"] = nn.ModuleDict({"layer": nn.ModuleList(BertLayer(width, heads, inner) for _ in range(layers))})
        self.name = name
        self.add_module(name, body)
        self.classifier = nn.Linear(width, classes)

    def body(self, words: Tensor) -> Tensor:
        body = self.get_submodule(self.name)
        x = body["embeddings"](words)
        for layer in body["encoder"]["layer"]:
            x = layer(x)
        return x

    def forward(self, words: Tensor) -> Tensor:
        return self.classifier(self.body(words)[:, 0])


class DistilAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_lin, self.k_lin, self.v_lin, self.out_lin = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.out_lin(attend(self.q_lin(x), self.k_lin(x), self.v_lin(x), self.heads))


class DistilLayer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = DistilAttention(width, heads)
        self.sa_layer_norm = nn.LayerNorm(width, eps=1e-12)
        self.ffn = nn.ModuleDict({"lin1": nn.Linear(width, inner), "lin2": nn.Linear(inner, width)})
        self.output_layer_norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sa_layer_norm(self.attention(x) + x)
        return self.output_layer_norm(self.ffn["lin2"](F.gelu(self.ffn["lin1"](x))) + x)


class DistilBert(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, layers: int, classes: int = 3) -> None:
        super().__init__()
        layer = nn.ModuleList(DistilLayer(width, heads, inner) for _ in range(layers))
        transformer = nn.ModuleDict({"layer": layer})
        self.distilbert = nn.ModuleDict({"embeddings": Embeddings(width, types=False), "transformer": transformer})
        self.pre_classifier, self.classifier = nn.Linear(width, width), nn.Linear(width, classes)

    def body(self, words: Tensor) -> Tensor:
        x = self.distilbert["embeddings"](words)
        for layer in self.distilbert["transformer"]["layer"]:
            x = layer(x)
        return x


def as_trained(model: nn.Module) -> nn.Module:
    """The model in evaluation, with normalisations that do something and biases that are not zero."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, (nn.Linear, nn.MultiheadAttention)):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3)
    return model.eval()


def words() -> Tensor:
    return torch.randint(WORDS, (4, 7), generator=torch.Generator().manual_seed(1))
