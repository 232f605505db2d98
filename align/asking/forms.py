"""How a question and its SQL are written where a model reads and writes them: as a query with its comment above.

    -- How many orders came from Seoul?
    SELECT COUNT(*) FROM orders WHERE city = 'Seoul';

Any model that has seen SQL goes on in this form, whether or not it was trained to follow instructions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

MARK = "-- "
WANTED = """\
Below are the schema of a database and questions that people ask of it, each with the SQL that answers it. Write {n} \
more, in the languages of these and as people would ask them, about other things than these. Write each exactly in the \
form of these: a line that begins with "-- " and holds the question, then its SQL, which ends with a semicolon. Write \
nothing else.

{shown}"""
ANSWERED = """\
Below are the schema of a database and questions that people ask of it, each with the SQL that answers it. Answer the \
last question in the same way. Write nothing but its SQL, which ends with a semicolon.

{shown}

-- {question}"""


@dataclass(frozen=True)
class Example:
    """A question and the SQL that answers it."""

    question: str
    answer: str


def shown(examples: Sequence[Example], schema: str = "", between: str = "\n\n") -> str:
    """The schema and the examples as a model reads them, `between` one and the next."""
    parts = [schema.strip(), *(written(e) for e in examples)]
    return between.join(part for part in parts if part)


def written(example: Example) -> str:
    """One example, the question in one line."""
    query = "\n".join(line for line in example.answer.strip().splitlines() if line.strip())
    return f"{MARK}{' '.join(example.question.split())}\n{query.rstrip().rstrip(';')};"


def read(text: str) -> tuple[list[Example], int]:
    """The questions with their SQL in what a model wrote, and how many began and have no end.

    SQL ends at a semicolon that ends a line. Lines of code fences are left out.
    """
    found, cut = [], 0
    question, query = "", list[str]()
    for line in [*text.splitlines(), MARK]:
        if re.match(r"\s*```", line):
            continue
        if line.startswith(MARK) and (not query or line == MARK):
            cut += bool(question)  # of two questions in a row the first has no SQL
            question, query = line.removeprefix(MARK).strip(), []
        elif question and line.strip():
            query.append(line.rstrip())
            if line.rstrip().endswith(";"):
                found.append(Example(question, "\n".join(query)))
                question, query = "", []
        elif query:  # an empty line within SQL that has no end
            cut, question, query = cut + 1, "", []
    return found, cut


def query_of(question: str, text: str) -> str:
    """The SQL with which a model answered a question, whether or not it repeats that; "" where it has no end."""
    found, _ = read(f"{MARK}{question}\n{text}")
    return found[0].answer if found else ""
