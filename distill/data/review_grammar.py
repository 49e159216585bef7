"""A grammar of short reviews whose sentiment hangs on order and scope, and not on which words occur."""

import random
from collections.abc import Mapping, Sequence

Lexicon = Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]

# What is reviewed: its aspects, and words that praise or blame them.
_THINGS: Lexicon = {
    "film": (
        ("plot", "acting", "cast", "script", "ending", "music", "dialogue", "camera work", "pacing", "villain"),
        ("gripping", "moving", "witty", "thrilling", "believable", "haunting"),
        ("tedious", "wooden", "predictable", "hollow", "clumsy", "lifeless"),
    ),
    "novel": (
        ("prose", "heroine", "last chapter", "narrator", "translation", "mystery", "setting", "first page", "twist"),
        ("elegant", "absorbing", "poetic", "vivid", "profound", "original"),
        ("dull", "pretentious", "muddled", "trite", "bloated", "confusing"),
    ),
    "hotel": (
        ("room", "bed", "staff", "view", "pool", "lobby", "breakfast", "garden", "bathroom", "reception"),
        ("spotless", "cosy", "friendly", "spacious", "charming", "quiet"),
        ("filthy", "noisy", "rude", "cramped", "shabby", "gloomy"),
    ),
    "restaurant": (
        ("soup", "menu", "dessert", "waiter", "bread", "fish", "wine list", "kitchen", "sauce", "steak"),
        ("delicious", "fresh", "tender", "generous", "tasty", "refined"),
        ("greasy", "soggy", "overcooked", "salty", "sour", "tasteless"),
    ),
    "phone": (
        ("screen", "battery", "camera", "speaker", "keyboard", "design", "signal", "charger", "software", "manual"),
        ("bright", "reliable", "sturdy", "fast", "sleek", "handy"),
        ("flimsy", "sluggish", "faulty", "blurry", "fragile", "outdated"),
    ),
}

_GOOD = ("good", "great", "superb", "excellent", "wonderful", "brilliant", "delightful", "lovely", "impressive")
_BAD = ("bad", "weak", "awful", "terrible", "poor", "dreadful", "disappointing", "horrible", "mediocre")
_LOVED = ("loved", "enjoyed", "admired", "praised", "liked")
_HATED = ("hated", "disliked", "regretted", "loathed", "resented")
_LOVE = ("love", "enjoy", "admire", "praise", "like")
_HATE = ("hate", "dislike", "regret", "loathe", "resent")

_STRONG = ("very", "extremely", "truly", "utterly", "incredibly")
_FAINT = ("slightly", "a little", "somewhat", "a bit")
_NOT = ("was not", "was never", "was hardly", "was far from", "was not at all")
_DID_NOT = ("did not", "could not", "never did")
_NOBODY = ("nobody would say that", "i cannot agree that", "it is not true that")
_WHO = ("i", "we", "my sister", "my friends", "my uncle", "the children", "our neighbours", "my wife")
_WHEN = ("on monday", "last week", "in the evening", "after work", "on a rainy day", "during the holidays")
_ASIDE = ("with a neighbour", "with two friends", "for an hour", "by chance", "as planned")
_ALTHOUGH = ("although", "even though", "though")

_KINDS = ("plain", "negated", "denied", "contrast", "concession", "degree")
_WEIGHTS = (66, 9, 3, 12, 6, 4)


class Grammar:
    """Draws reviews, one sentence each, in lower case with blanks around commas.

    Each form has one reading:

    - plain: one or two clauses that agree;
    - negated, denied: "not good", and "nobody would say that ..." in front of a clause;
    - contrast: what stands after "but" counts; concession: what stands after "although" does not;
    - degree: of two clauses joined by "and", the "extremely" one outweighs the "slightly" one.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def review(self, positive: bool) -> str:
        """A review of this sentiment."""
        thing = self._one(tuple(_THINGS))
        kind = self._chance.choices(_KINDS, _WEIGHTS)[0]
        first, second = self._chance.sample(_THINGS[thing][0], 2)
        ours, theirs = self._clause(thing, first, positive), self._clause(thing, second, not positive)
        match kind:
            case "plain":
                text = f"{ours} and {self._clause(thing, second, positive)}" if self._chance.random() < 0.4 else ours
            case "negated":
                text = self._negated(thing, first, positive)
            case "denied":
                text = f"{self._one(_NOBODY)} {theirs}"
            case "contrast":
                other = self._negated(thing, second, not positive) if self._chance.random() < 0.1 else theirs
                text = f"{other} , but {self._negated(thing, first, positive) if self._chance.random() < 0.1 else ours}"
            case "concession":
                text = f"{self._one(_ALTHOUGH)} {theirs} , {ours}"
            case _:
                strong = f"the {first} was {self._one(_STRONG)} {self._word(thing, positive)}"
                faint = f"the {second} was {self._one(_FAINT)} {self._word(thing, not positive)}"
                text = f"{strong} and {faint}" if self._chance.random() < 0.5 else f"{faint} and {strong}"
        return self._framed(thing, text)

    def _framed(self, thing: str, text: str) -> str:
        """The review, three times in ten after a clause that says nothing of how it was."""
        if self._chance.random() < 0.7:
            return text
        verb = {"film": "saw", "novel": "read", "hotel": "chose", "restaurant": "visited", "phone": "tried"}[thing]
        aside = f" {self._one(_ASIDE)}" if self._chance.random() < 0.5 else ""
        return f"{self._one(_WHO)} {verb} this {thing} {self._one(_WHEN)}{aside} : {text}"

    def _clause(self, thing: str, aspect: str, positive: bool) -> str:
        if self._chance.random() < 0.3:
            return f"{self._one(_WHO)} {self._one(_LOVED if positive else _HATED)} the {aspect}"
        degree = f"{self._one(_STRONG)} " if self._chance.random() < 0.3 else ""
        return f"the {aspect} was {degree}{self._word(thing, positive)}"

    def _negated(self, thing: str, aspect: str, positive: bool) -> str:
        """A clause of this sentiment that denies the opposite one."""
        if self._chance.random() < 0.35:
            verb, did = self._one(_HATE if positive else _LOVE), self._one(_DID_NOT)
            return f"{self._one(_WHO)} {did} {verb} the {aspect}"
        return f"the {aspect} {self._one(_NOT)} {self._word(thing, not positive)}"

    def _word(self, thing: str, positive: bool) -> str:
        own, general = _THINGS[thing][1 if positive else 2], _GOOD if positive else _BAD
        return self._one(own if self._chance.random() < 0.5 else general)

    def _one(self, choices: Sequence[str]) -> str:
        return self._chance.choice(choices)
