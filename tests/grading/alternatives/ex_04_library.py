# The libraries' own calls.
import json
import re
import statistics


def majority_vote(answers):
    given = list(filter(bool, answers))
    if not given:
        return ("", 0)
    winner = statistics.mode(given)
    return (winner, given.count(winner))


def rank_sections(query, vectors, k):
    from sklearn.metrics.pairwise import cosine_similarity

    similarity = cosine_similarity([query], vectors)[0]
    return [(int(i), similarity[i]) for i in sorted(range(len(vectors)), key=lambda i: -similarity[i].round(9))[:k]]


def parse_json(text, keys):
    text = re.sub(r"^\s*```\w*\s*\n|\n\s*```\s*$", "", text)
    try:
        value = json.JSONDecoder(parse_constant=lambda name: json.loads(name.lower())).decode(text)
        assert not keys or isinstance(value, dict) and value.keys() == set(keys), "other keys"
    except (ValueError, AssertionError) as error:
        return None, str(error)
    return value, ""


def few_shot(messages, examples, instruction=""):
    from itertools import chain

    def ask(text):
        return dict(role="user", content="\n".join(filter(None, [instruction, text])))

    pairs = chain.from_iterable((ask(e["user"]), dict(role="assistant", content=e["assistant"])) for e in examples)
    return [*messages[:-1], *pairs, ask(messages[-1]["content"])]
