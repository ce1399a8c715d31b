"""What instructors and students read: a report for each submission, Gradescope's file, a spreadsheet, and changes.

A record is what grade.py writes to records/: submission, state, score, max_score, note, seed, measures, printed, and
cases: a list of {"task", "function", "case", "points", "passed", "problem", "hint", "public"}.
"""

from __future__ import annotations

import csv
import io

from cases import guide_section


def report(record: dict, exercise: str) -> str:
    """A student's report in Markdown: what each task gave and why; neither inputs nor right values of hidden cases."""
    lines = [f"# {exercise}: {record['submission']}", "",
             f"**{record['score']:g} of {record['max_score']} points** ({record['state']})", ""]
    if record["note"]:
        lines += [f"Note: {record['note']}", ""]
    if record["state"] in ("import error", "grader error"):
        lines += ["Nothing could be tried: a person should look at this file.", ""]
    by_task: dict[str, list[dict]] = {}
    for row in record["cases"]:
        by_task.setdefault(row["task"], []).append(row)
    for task, rows in by_task.items():
        got, of = (sum(row["points"] for row in rows if row["passed"] or all_) for all_ in (False, True))
        lines += [f"## Task {task}, `{rows[0]['function']}`: {got:g} of {of:g} points".replace(".0 ", " "), ""]
        for row in rows:
            lines.append(f"- passed: {row['case']}" if row["passed"] else
                         f"- **not passed**: {row['case']}: {explained(row)}")
        if got < of:
            lines.append(f"- read: {guide_section(exercise, rows[0]['function'])}")
        lines.append("")
    if record.get("printed"):
        printed = record["printed"].replace("```", "'''")
        lines += ["What the file printed, shortened:", "", "```text", printed, "```", ""]
    cage = ", ".join(f"{name}: {'yes' if held else 'no'}" for name, held in record["measures"].items()) \
        if record.get("measures") else ""
    return "\n".join([*lines, f"What held the file's code in while it was graded: {cage or 'it was not run'}.", ""])


def explained(row: dict) -> str:
    """What is wrong in a case that was not passed, with its most likely cause."""
    told = not row["hint"] or row["problem"].startswith((
        "not written", "it was not tried", "it did not end", "the process ended", "counts when"))
    return f"{row['problem']}." + ("" if told else f" Likely cause: {row['hint']}.")


def gradescope(record: dict) -> dict:
    """results.json as Gradescope's documentation describes it: a score for each test, none at the top."""
    if not record["cases"]:
        return {"score": 0.0, "output": f"{record['state']}: {record['note']}", "visibility": "visible", "tests": []}
    return {"output": record["note"], "visibility": "visible", "tests": [
        {"name": f"Task {row['task']}, {row['function']}: {row['case']}", "number": row["task"],
         "score": round(row["points"], 3) if row["passed"] else 0.0, "max_score": round(row["points"], 3),
         "status": "passed" if row["passed"] else "failed",
         "output": "" if row["passed"] else explained(row),
         "visibility": "visible"} for row in record["cases"]]}


def changes(before: dict[str, dict], records: list[dict]) -> str:
    """Who has another score than before, and which cases made the difference; "" if nobody."""
    lines = []
    for record in records:
        old = before.get(record["submission"])
        if old and (old["score"], old["state"]) != (record["score"], record["state"]):
            passed = {(row["function"], row["case"]): row["passed"] for row in old["cases"]}
            why = [f"{row['function']}: {row['case']} is {'passed now' if row['passed'] else 'no longer passed'}"
                   for row in record["cases"] if passed.get((row["function"], row["case"])) != row["passed"]]
            lines.append(f"- {record['submission']}: {old['score']:g} ({old['state']}) is now {record['score']:g} "
                         f"({record['state']}). " + ("; ".join(why) or record["note"]))
    return "# Changed scores\n\n" + "\n".join(lines) + "\n" if lines else ""


def spreadsheet(records: list[dict]) -> str:
    """grades.csv: a row for each submission, with points by task."""
    tasks = sorted({row["task"] for record in records for row in record["cases"]})
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["submission", "score", "max_score", "state", "note", *(f"task {task}" for task in tasks)])
    for record in records:
        # A cell that begins with one of these is a formula to a spreadsheet.
        name, note = (("'" + text if text[:1] in "=+-@" and text else text)
                      for text in (record["submission"], record["note"]))
        writer.writerow([name, f"{record['score']:g}", record["max_score"], record["state"], note, *(
            f"{sum(row['points'] for row in record['cases'] if row['task'] == task and row['passed']):g}"
            for task in tasks)])
    return file.getvalue()
