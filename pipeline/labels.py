"""What methods, metrics and protocols are called in tables and figures, and their colours."""

from __future__ import annotations

from collections.abc import Sequence

LABELS = {
    "ft_l": "FT-L",
    "ft_m": "FT-M",
    "lora": "LoRA",
    "adalora": "AdaLoRA",
    "qlora": "QLoRA",
    "r_rome": "R-ROME",
    "alphaedit": "AlphaEdit",
    "locft": "LocFT",
    "mixsd": "MixSD",
    "retrieval": "Retrieval",
}
"""Where capitals alone would not be the usual spelling."""

COLOURS = {
    "base": "#7f7f7f",
    "ske": "#c8371b",
    "prompt": "#1f6fb4",
    "ike": "#5aa5d6",
    "retrieval": "#0b4470",
    "prompt_packed": "#8fc1e3",
    "lora": "#2c8f5b",
    "adalora": "#6bb98a",
    "qlora": "#145c37",
    "ft_l": "#9a7b1c",
    "ft_m": "#c9a93c",
    "locft": "#6b5410",
    "rome": "#7d4fa3",
    "r_rome": "#a986c7",
    "memit": "#54307a",
    "alphaedit": "#b0529c",
    "mend": "#8c5a3c",
    "svf": "#117a7a",
    "mixsd": "#4fb0ae",
    "sdft": "#0a4d4d",
}
"""One colour a method, the same in every figure and every run; families share a hue."""

LAYOUT_COLOURS = {
    "triples": "#1f6fb4",
    "prose": "#c98a1b",
    "by_subject": "#2c8f5b",
    "by_relation": "#7d4fa3",
    "table": "#117a7a",
    "qa": "#b0529c",
    "narrative": "#8c5a3c",
}
OTHER = "#444444"

METRICS = (
    "edit_success",
    "paraphrase",
    "portability",
    "locality",
    "hard",
    "sentiment",
    "capability",
    "fluency",
)
"""What the headline table shows and methods are compared on in words."""
TITLES = {
    "hard": "success on hard probes",
    "locality_correct": "locality, right",
    "locality_kl": "locality, moved (nats)",
    "self_refutation": "argues for the old",
    "forgotten": "old answer gone",
    "refusal": "refuses (Sanitation)",
    "locality_overlap": "locality, words in place",
    "sentiment": "opinion turned",
    "sentiment_kl": "other topics moved (nats)",
    "fluency_entropy": "fluency (0.01 bits)",
    "edit_success_by_belief": "edit success by strength of the old belief",
    "portability_share": "portability, in percent of a ceiling's",
}
"""Where the name alone would not tell."""
LOWER_IS_BETTER = ("self_refutation", "locality_kl", "sentiment_kl", "perplexity")
NOBODY_WINS = ("fluency", "fluency_entropy")
"""To be read beside the base model's: noise repeats nothing."""
IN_NATS = ("locality_kl", "sentiment_kl")
PROTOCOLS = {
    "generate": "free generation (what users see)",
    "teacher_forced": "teacher forcing (comparable with the literature)",
}


def method_label(name: str) -> str:
    """`ske` -> SKE, `ft_l` -> FT-L."""
    return LABELS.get(name, name.replace("_", "-").upper())


def method_colour(name: str) -> str:
    """The method's own colour."""
    return COLOURS.get(name, OTHER)


def plain(name: str) -> str:
    """`edit_success` -> edit success; a data set's category keeps its capitals."""
    return TITLES.get(name, name.replace("_", " "))


def counted(number: int, noun: str) -> str:
    """1 fact, 2 facts."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def in_order(protocols: Sequence[str]) -> list[str]:
    """What users see first."""
    return sorted(protocols, key=lambda name: (name not in PROTOCOLS, list(PROTOCOLS).index(name)))
