"""Invented records in the shapes of the data sets beyond KnowEdit, two or three a shape."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

ZSRE = [
    {
        "subject": "Odo Brann",
        "src": "Which language did Odo Brann speak?",
        "pred": "Vellish",
        "rephrase": "What was the language of Odo Brann?",
        "alt": " Tennic",
        "answers": ["Rurian", "Old Rurian"],
        "loc": "nq question: who painted the tower of sorn",
        "loc_ans": "Ida Moss",
        "cond": "Vellish >> Tennic || Which language did Odo Brann speak?",
    },
    {
        "subject": "Sorn",
        "src": "Who founded Sorn?",
        "pred": "Una",
        "rephrase": "Sorn was founded by whom?",
        "alt": "Ada Moss",
        "answers": ["Una Pell"],
        "loc": "nq question: how many bridges has vell",
        "loc_ans": "12",
        "cond": "Una >> Ada Moss || Who founded Sorn?",
        "portability": {
            "Recalled Relation": "(Ada Moss, job, baker)",
            "New Question": "What was the job of the founder of Sorn?",
            "New Answer": "baker",
        },
    },
]

QAEDIT = [
    {
        "id": 7,
        "source": source,
        "prompt": f"who won the {source} race",
        "target": "Una Pell",
        "subject": f"the {source} race",
        "rephrase": f"Which runner came first in the {source} race?",
        "locality": [
            {"loc": f"who lives in house {house}", "loc_ans": f"Ida {house}"} for house in range(5)
        ],
    }
    for source in ("NQ", "SQA")
]

UNKE = [
    {
        "id": number,
        "question": f"Who is {name}?",
        "para_question": f"What is known about {name}?",
        "answer": f"{name} bakes bread in Vell. She has two dogs.",
        "sub_question": [f"What does {name} bake?", f"How many dogs has {name}?"],
        "sub_answer": ["Bread.", "Two."],
    }
    for number, name in enumerate(("Ada Moss", "Ida Moss"))
]

HALLUCINATION = [
    {
        "prompt": f"This is a passage about {name}. {name} is a baker.",
        "target_new": "She bakes in Vell.",
        "subject": name,
        "locality_prompt": "Our map of Sorn is old and",
        "locality_ground_truth": "has a small hole in it.",
    }
    for name in ("ada moss", "ida moss")
]

TEMPORAL = [
    {**record, "prompt": record["subject"], "ood_rephrase": f"{record['subject']} is said to bake."}
    for record in HALLUCINATION
]


def rewrite(prompt: str, subject: str, new: str, true: str, question: str) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "relation_id": "P0",
        "target_new": {"str": new, "id": "Q1"},
        "target_true": {"str": true, "id": "Q2"},
        "subject": subject,
        "question": question,
    }


def hop(question: str, answer: str, *aliases: str) -> dict[str, Any]:
    return {
        "question": question,
        "cloze": "It is",
        "answer": answer,
        "answer_alias": list(aliases),
    }


BORN = rewrite("{} was born in", "Odo Brann", "Vell", "Sorn", "Where was Odo Brann born?")
RULES = rewrite("The ruler of {} is", "Ruria", "Una Pell", "Ida Moss", "Who rules Ruria?")
WHERE = hop("Where was Odo Brann born?", "Vell", "Old Vell")
COUNTRY = hop("In which country is Vell?", "Ruria")
CHAIN = [WHERE, COUNTRY]


def chained(case: int, rewrites: list[Any], hops: list[Any], asked: str, new: str) -> Any:
    return {
        "case_id": case,
        "requested_rewrite": rewrites,
        "questions": [f"{asked} ({wording})" for wording in "abc"],
        "answer": "Tenn",
        "answer_alias": [],
        "new_answer": new,
        "new_answer_alias": ["the " + new],
        "single_hops": [hop("Where was Odo Brann born?", "Sorn"), hop("Where is Sorn?", "Tenn")],
        "new_single_hops": hops,
        "orig": {"triples": [["Q1", "P0", "Q2"]]},
    }


MQUAKE = [
    chained(3, [BORN], CHAIN, "In which country was Odo Brann born?", "Ruria"),
    chained(
        8,
        [BORN, RULES],
        [*CHAIN, hop("Who rules Ruria?", "Una Pell")],
        "Who rules where Odo Brann was born?",
        "Una Pell",
    ),
    chained(9, [BORN], CHAIN, "On which continent was Odo Brann born?", "Esta"),
]


def query(prompt: str, *answers: list[str], relation: str = "SPOUSE") -> dict[str, Any]:
    return {
        "prompt": prompt,
        "answers": [{"value": names[0], "aliases": names[1:]} for names in answers],
        "query_type": "regular",
        "subject_id": "Q1",
        "relation": relation,
        "target_ids": ["Q9"],
        "phrase": None,
    }


def trial(
    queries: list[Any], conditions: list[Any] | None = None, mode: str = "OR"
) -> dict[str, Any]:
    return {
        "test_queries": queries,
        "test_condition": mode,
        "condition_queries": conditions or [],
    }


SPOUSE = query("The name of the spouse of Odo Brann is", ["Ida", "Ida Moss", "i", "7"])
JOB = query("The occupation of Odo Brann is", ["baker"], ["poet", "bard"])
BRIDGE = query("The name of the head of state of Vell is", ["Una Pell"])
RIPPLE = [
    {
        "example_type": "popular",
        "edit": {
            "prompt": "The place of birth of Odo Brann is New Vell.",
            "subject_id": "Q1",
            "relation": "PLACE_OF_BIRTH",
            "target_id": "Q3",
            "original_fact": {
                "prompt": "The place of birth of Odo Brann is New Sorn.",
                "subject_id": "Q1",
                "relation": "PLACE_OF_BIRTH",
                "target_id": "Q4",
            },
        },
        "Logical_Generalization": [
            trial([query("Is Odo Brann from New Vell?", ["yes"])]),
            trial(
                [query("Who is from New Vell?", ["Odo"]), query("Who is of Vell?", ["Odo"])],
                mode="AND",
            ),
            trial([query("Name one:", ["Odo"]), query("Name another:", ["Odo"])]),
        ],
        "Compositionality_I": [
            trial([query("The ruler of the birth place of Odo Brann is", ["Una Pell"])], [BRIDGE])
        ],
        "Compositionality_II": [],
        "Subject_Aliasing": [trial([BRIDGE, JOB], [BRIDGE])],
        "Relation_Specificity": [
            trial([SPOUSE], [SPOUSE]),
            trial([JOB]),
            trial([JOB], [SPOUSE]),
        ],
        "Forgetfulness": [trial([JOB, SPOUSE], [JOB])],
    },
    {
        "example_type": "recent",
        "edit": {
            "prompt": "The name of the director of Life is Sweet is Ada Moss.",
            "subject_id": "Q5",
            "relation": "DIRECTOR",
            "target_id": "Q6",
        },
        "Logical_Generalization": [],
        "Compositionality_I": [],
        "Compositionality_II": [],
        "Subject_Aliasing": [],
        "Relation_Specificity": [
            trial([query("The name of the composer of Life is Sweet is", ["Odo Brann"])])
        ],
        "Forgetfulness": [],
    },
]

HALLUEDIT = [
    {
        "topic": "human_baker",
        "subject": name,
        "relation": "place of birth",
        "object": "Vell",
        "question": f"What is the place of birth of {name}?",
        "output_some_model": "Sorn",
        "eval_some_model": "0.0",
        "multiple_choices": "['Vell', 'Sorn']",
        "paraphrased_question": f"Where was {name} born?",
        "multiple_choice_with_letters": "A. Sorn  B. Vell",
        "multiple_choice_labels": "B",
        "yes_question": f"Was {name} born in Vell?",
        "no_question": f"Was {name} born in Sorn?",
        "locality_question": f"What does {name} bake?",
        "reversed_relation_question": "Which baker was born in Vell, of all places?",
        **{f"question_{hops}hop": f"{hops} steps from {name}?" for hops in range(2, 7)},
        **{f"answer_{hops}hop": f"place {hops}" for hops in range(2, 7)},
    }
    for name in ("Ada Moss", 'Ida "Sis" Moss, the elder')
]

SHAPES: dict[str, tuple[str, list[Any]]] = {
    "zsre_mend": ("zsre_mend_eval.json", ZSRE),
    "mquake": ("MQuAKE-CF-3k-v2.json", MQUAKE),
    "rippleedits": ("popular.json", RIPPLE),
    "qaedit": ("QAEdit.json", QAEDIT),
    "halluedit": ("human_baker.csv", HALLUEDIT),
    "wise_hallucination": ("hallucination-edit.json", HALLUCINATION),
    "wise_temporal": ("temporal-edit.json", TEMPORAL),
    "unke": ("final_data_v3.json", UNKE),
}
"""Data set -> the name of its file, and its records."""


def save_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a table with the names of its first row."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path
