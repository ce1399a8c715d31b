# Plain loops, one step at a time.
import json
import math


def trim_history(head, history, question, budget, count_tokens):
    turns = []
    for message in history:
        if message["role"] == "user":
            turns.append([])
        turns[-1].append(message)
    gone = 0
    while True:
        messages = list(head)
        for turn in turns[gone:]:
            messages.extend(turn)
        messages.append(question)
        if budget is None or count_tokens(messages) <= budget:
            return messages, gone
        gone += 1


def few_shot(messages, examples, instruction=""):
    result = [dict(message) for message in messages[:-1]]
    prefix = instruction + "\n" if instruction else ""
    for example in examples:
        result.append({"role": "user", "content": prefix + example["user"]})
        result.append({"role": "assistant", "content": example["assistant"]})
    result.append({"role": "user", "content": prefix + messages[-1]["content"]})
    return result


def with_context(messages, sections):
    if len(sections) == 0:
        return list(messages)
    text = "Use these passages:\n"
    for heading, passage in sections:
        for bad in ("</passage", "</PASSAGE", "<passage"):
            passage, heading = passage.replace(bad, ""), heading.replace(bad, "")
        text += "<passage>\n# " + heading + "\n" + passage + "\n"
    return messages[:-1] + [{"role": "user", "content": text + "</passage>\n" + messages[-1]["content"]}]


def parse_json(text, keys):
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        stripped = stripped.split("\n", 1)[1].rsplit("\n", 1)[0]

    def no(name):
        raise ValueError(name)
    try:
        value = json.loads(stripped, parse_constant=no)
    except ValueError:
        return (None, "not JSON")
    if keys:
        if type(value) is not dict:
            return (None, "not an object")
        if sorted(value) != sorted(keys):
            return (None, "other keys")
    return (value, "")


def majority_vote(answers):
    best, most = "", 0
    for answer in answers:
        if answer and answers.count(answer) > most:
            best, most = answer, answers.count(answer)
    return best, most


def rank_sections(query, vectors, k):
    scores = []
    for i, vector in enumerate(vectors):
        dot = sum(float(a) * float(b) for a, b in zip(query, vector))
        length = math.sqrt(sum(float(a) ** 2 for a in query)) * math.sqrt(sum(float(b) ** 2 for b in vector))
        scores.append((i, dot / length if length else 0.0))
    return sorted(scores, key=lambda pair: (-pair[1], pair[0]))[:k]
