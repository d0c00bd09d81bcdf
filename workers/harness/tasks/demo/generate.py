"""Makes the demo suite's documents from a small grammar, always the same ones, and text to train a demo model on.

Run `python -m workers.harness.tasks.demo.generate` to write the data files again; a test proves that they are what
this module makes. Test documents never occur in the training split, and nothing here imports lm-eval.
"""

import json
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
TRAIN_LINES = 2000
TEST_LINES = 100

NAMES = ("Mia", "Tom", "Ana", "Ben", "Lea", "Max")
SIZES = ("small", "big", "old", "new", "nice")
PLACES = ("house", "garden", "street", "school", "river")
KINDS = ("animal", "fruit", "colour", "tool")
WORDS = {
    "animal": ("cat", "dog", "horse", "mouse", "goat"),
    "fruit": ("apple", "pear", "plum", "grape", "cherry"),
    "colour": ("red", "blue", "green", "black", "white"),
    "tool": ("hammer", "saw", "drill", "knife", "axe"),
}
ENDINGS = {
    "dog": "ran after the ball and came back.",
    "cat": "slept on the warm mat all day.",
    "bird": "sang a song and flew to its nest.",
    "fish": "swam to the stones in the deep water.",
}
THINGS = ("apples", "pears", "balls", "books", "stones")
LARGEST = 5
"""Largest number in a sum: 36 sums in all, few enough to be learnt by heart in a minute."""

Document = dict[str, Any]


def letters(draw: random.Random) -> Document:
    """A question with four lettered choices, answered by a letter."""
    kind = draw.randrange(4)
    word = draw.choice(WORDS[KINDS[kind]])
    story = f"{draw.choice(NAMES)} has a {draw.choice(SIZES)} {word} in the {draw.choice(PLACES)}."
    return {"story": story, "question": f"What is {word}?", "choices": list(KINDS), "answer": kind}


def stories(draw: random.Random) -> Document:
    """A beginning and four endings of several words each."""
    subject = draw.randrange(4)
    name = list(ENDINGS)[subject]
    owner, place = draw.choice(NAMES), draw.choice(PLACES)
    beginning = f"{owner} had a {draw.choice(SIZES)} {name} near the {place}. In the morning the {name}"
    return {"beginning": beginning, "endings": list(ENDINGS.values()), "answer": subject}


def sums(draw: random.Random) -> Document:
    """A small sum in words, answered by a generated number."""
    first, second = draw.randint(0, LARGEST), draw.randint(0, LARGEST)
    question = (
        f"{draw.choice(NAMES)} has {first} {draw.choice(THINGS)} and gets {second} from {draw.choice(NAMES)} "
        f"at the {draw.choice(PLACES)}. How many are {first} + {second}?"
    )
    return {"question": question, "answer": str(first + second)}


MAKERS: dict[str, Callable[[random.Random], Document]] = {"letters": letters, "stories": stories, "sums": sums}


def documents(kind: str) -> dict[str, list[Document]]:
    """The splits `train` and `test` of a task's documents, all different from each other."""
    draw = random.Random(f"evalyard demo {kind}")  # noqa: S311  # data, not secrets
    found: dict[str, Document] = {}
    most = TRAIN_LINES + TEST_LINES
    # The grammar has fewer different letters and stories than wanted lines: test lines are new, train lines may repeat.
    for _ in range(most * 3):
        document = MAKERS[kind](draw)
        found.setdefault(json.dumps(document), document)
    different = list(found.values())[:most]
    test, train = different[:TEST_LINES], different[TEST_LINES:]
    while len(train) < TRAIN_LINES:
        train.append(draw.choice(train))
    return {"train": train, "test": test}


def text(kind: str, document: Document) -> str:
    """Prompt and right answer of a document, exactly as the task's file renders them."""
    if kind == "letters":
        choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", document["choices"], strict=True))
        question = f"{document['story']}\nQuestion: {document['question']}\n{choices}\nAnswer:"
        return f"{question} {'ABCD'[document['answer']]}"
    if kind == "stories":
        return f"{document['beginning']} {document['endings'][document['answer']]}"
    return f"Question: {document['question']}\nAnswer: {document['answer']}"


def training_text() -> list[str]:
    """Text to train the demo model and its tokenizer on: one to four solved training documents of a task a piece.

    Pieces of one task are joined as lm-eval joins few-shot examples; tasks take turns. Never a test document.
    """
    draw = random.Random("evalyard demo training text")  # noqa: S311  # data, not secrets
    pieces = []
    remaining = {kind: iter(documents(kind)["train"]) for kind in MAKERS}
    while remaining:
        for kind in list(remaining):
            solved = [text(kind, document) for document in islice(remaining[kind], draw.randint(1, 4))]
            if solved:
                pieces.append("\n\n".join(solved) + "\n\n")
            else:
                del remaining[kind]
    return pieces


def render() -> dict[Path, str]:
    """Each data file below this folder and its contents."""
    return {
        FOLDER / "data" / kind / f"{split}.jsonl": "".join(json.dumps(line) + "\n" for line in lines)
        for kind in MAKERS
        for split, lines in documents(kind).items()
    }


def main() -> None:
    for path, contents in render().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents, encoding="utf-8")


if __name__ == "__main__":
    main()
