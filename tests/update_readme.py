"""Write the README's output blocks and pictures anew, by running the commands that they belong to.

    python tests/update_readme.py                 all blocks (minutes)
    python tests/update_readme.py ex_01           only those whose command contains ex_01

A block stands between `<!-- output of: COMMAND -->` and `<!-- end of output -->`. The command's own picture files
named in the README as guides/images/ex_0N_NAME.png are copied from outputs/ex_0N/NAME.png.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- output of: (?P<command>.+?) -->\n).*?(<!-- end of output -->)", re.DOTALL)


def output_of(command: str) -> str:
    """What a command prints, run from the repository's root. Stops everything if it fails."""
    print(f"running: {command}", flush=True)
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    result = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    readme = REPOSITORY / "README.md"

    def renew(match: re.Match) -> str:
        if wanted not in match["command"]:
            return match[0]
        return f"{match[1]}\n```text\n{output_of(match['command'])}\n```\n\n{match[3]}"

    text = BLOCK.sub(renew, readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8", newline="\n")
    for exercise, name in set(re.findall(r"guides/images/(ex_\d\d)_(\w+\.png)", text)):
        if wanted in exercise:
            image = REPOSITORY / "guides" / "images" / f"{exercise}_{name}"
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / "outputs" / exercise / name, image)


if __name__ == "__main__":
    main()
