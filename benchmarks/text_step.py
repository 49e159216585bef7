"""Cost of a training step on text: pairs of ways, each median ratio out of interleaved steps of one run, as JSON.

python benchmarks/text_step.py [--pairs 20] [--out benchmarks/results/text_step.json]

Attention: a step of MiniLMv2, a teacher of MiniLM's shape (6 layers, 384 wide) and a student of 3 layers, both with
fused (SDPA) and both with eager attention; with BERT's dropout of attention, for which torch has no fused kernel on a
CPU, and without. The weights are random, which changes no cost. Seconds are the process's own on one thread, so that
what else the machine runs counts little; the order within a pair alternates, so that a drifting machine hurts both
sides alike.

Padding: the same step on SST-2's sentences under MiniLM's tokenizer, eight batches of 32 a side: in buckets of similar
length, and as they come, each against padding to 64 tokens.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, product
from pathlib import Path

import torch
from accelerate import Accelerator
from pairs import HEADS, VOCABULARY, WIDTH, texts
from sentiment import encoder
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from distill.batch import Batch
from distill.data import Batches, Sst2, TextSplits
from distill.data.texts import Padding
from distill.losses import CrossEntropy
from distill.measure import machine, versions
from distill.plan import Plan, Term, connect
from distill.recipe import AdamW
from distill.terms import minilmv2_terms
from distill.tokenize import load_tokenizer
from distill.trainer import Trainer

TEACHER_LAYERS, STUDENT_LAYERS, BATCH = 6, 3, 8
LENGTHS, DROPOUTS = (32, 64), (0.1, 0.0)
PLAN: Plan = {"task": Term(CrossEntropy()), **minilmv2_terms(TEACHER_LAYERS, STUDENT_LAYERS)}
WARM_UP = 2
SENTENCES, BLOCK = 32, 8
Step = Callable[[], None]


def bert(layers: int, attention: str, dropout: float) -> nn.Module:
    """A BERT of MiniLM's width; `dropout` is that of its attention."""
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        attention_probs_dropout_prob=dropout,
        attn_implementation=attention,
    )
    torch.manual_seed(layers)
    return BertForSequenceClassification(config)


def minilmv2_step(attention: str, batch: Batch, dropout: float) -> Step:
    """One update of the student by labels and relations, always on the same batch."""
    step = steps(bert(TEACHER_LAYERS, attention, dropout), bert(STUDENT_LAYERS, attention, dropout), batch)
    return lambda: step(batch)


def steps(teacher: nn.Module, student: nn.Module, sample: Batch) -> Callable[[Batch], None]:
    """What makes one update on a batch."""
    guide, learner = connect(teacher, student, PLAN, sample)
    accelerator = Accelerator(cpu=True)
    optimizer = AdamW(lr=5e-5).build([p for p in learner.parameters() if p.requires_grad])
    prepared, prepared_optimizer = accelerator.prepare(learner, optimizer)
    trainer = Trainer(accelerator, guide, prepared, PLAN, prepared_optimizer)
    prepared.train()

    def step(batch: Batch) -> None:
        trainer.step([batch])
        trainer.lines.rows.clear()

    return step


def compare(ways: Mapping[str, Step], pairs: int) -> dict[str, object]:
    """Median seconds of both ways, and the median and quartiles of first over second, pair by pair."""
    (first, one), (second, other) = ways.items()
    seconds: dict[str, list[float]] = {first: [], second: []}
    for pair in range(pairs + WARM_UP):
        order = ((first, one), (second, other)) if pair % 2 else ((second, other), (first, one))
        for name, step in order:
            start = time.process_time()
            step()
            if pair >= WARM_UP:
                seconds[name].append(time.process_time() - start)
    ratios = [a / b for a, b in zip(seconds[first], seconds[second], strict=True)]
    lower, middle, upper = statistics.quantiles(ratios, n=4)
    medians = {f"{name}_seconds": statistics.median(taken) for name, taken in seconds.items()}
    return {"pairs": pairs, "ratio_median": middle, "ratio_quartiles": [lower, upper], **medians}


def attention_rows(pairs: int) -> Iterator[dict[str, object]]:
    """Fused against eager attention, at several lengths of the longest text, with and without dropout of attention."""
    for length, dropout in product(LENGTHS, DROPOUTS):
        batch = texts(BATCH, length)
        found = compare({way: minilmv2_step(way, batch, dropout) for way in ("sdpa", "eager")}, pairs)
        name = f"MiniLMv2, sdpa over eager, {length} tokens, attention dropout {dropout}"
        yield {"row": name, "batch": BATCH, "tokens": length, "attention_dropout": dropout, **found}


def sentences(padding: Padding) -> tuple[TextSplits, Iterator[Batch]]:
    """SST-2, and its training batches without end."""
    splits = Sst2(max_length=64, padding=padding).load(0, None)
    assert isinstance(splits, TextSplits)
    splits = splits.encoded({"": load_tokenizer(encoder())})

    def batches() -> Iterator[Batch]:
        order = Batches(len(splits.train), batch_size=SENTENCES, lengths=splits.train.lengths)
        for epoch in count():
            order.set_epoch(epoch)
            for keys in order:
                yield splits.collate([splits.train[key] for key in keys])

    return splits, batches()


def block(step: Callable[[Batch], None], batches: Iterator[Batch]) -> Step:
    """So many updates, each on the next batch."""

    def run() -> None:
        for _ in range(BLOCK):
            step(next(batches))

    return run


def padding_rows(pairs: int) -> Iterator[dict[str, object]]:
    """Blocks of steps on padded sentences over as many in buckets, or batched by chance."""
    splits, padded = sentences("max_length")
    for padding in ("buckets", "longest"):
        _, own = sentences(padding)
        step = steps(bert(TEACHER_LAYERS, "sdpa", 0.1), bert(STUDENT_LAYERS, "sdpa", 0.1), next(padded))

        found = compare({"padded": block(step, padded), padding: block(step, own)}, pairs)
        own_seconds = found[f"{padding}_seconds"]
        assert isinstance(own_seconds, float)
        yield {
            "row": f"SST-2, padded to {splits.max_length} over {padding}",
            "batch": SENTENCES,
            "sentences_per_second": BLOCK * SENTENCES / own_seconds,
            **found,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "text_step.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for row in chain(padding_rows(options.pairs), attention_rows(options.pairs)):
        rows.append(row)
        print(f"{row['row']:65} {row['ratio_median']:.3f} ({options.pairs} pairs)", flush=True)
    result = {"threads": 1, "rows": rows, "machine": machine(), "versions": versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
