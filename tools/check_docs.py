"""Hold the documents against the repository.

Every relative link resolves, with its heading; every `envelock` command in a fenced block exists,
with its options; every path in backticks that names a file of this repository is there.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click

from envelock.cli import root

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
# Of a room only its modules are meant: `pdp/jwks.json` is a file of the data directory.
OF_A_ROOM = re.compile(r"(?:formats|ledger|pdp|kas|sdk|service|policies)/[\w./*-]+\.py")
OF_OTHERS = re.compile(r"(?:tests|docs|tools|examples|benchmarks|\.ci)/[\w./*-]+")


def documents() -> list[Path]:
    """Every document outside of hidden and built folders."""
    apart = {"build", "dist", "node_modules"}
    return [
        path
        for path in sorted(ROOT.rglob("*.md"))
        if not any(
            part in apart or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1]
        )
    ]


def bad_links(document: Path, prose: str) -> Iterator[str]:
    """Relative links that lead nowhere."""
    for target in LINK.findall(prose):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (document.parent / path).resolve() if path else document
        if not found.is_relative_to(ROOT) or not found.exists():
            yield f"link to {target}, which is not there"
        elif anchor and anchor not in anchors(found):
            yield f"link to {target}: no such heading"


def anchors(document: Path) -> set[str]:
    """The names of a document's headings, as hosting platforms make them."""
    headings = HEADING.findall(FENCE.sub("", document.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def bad_paths(prose: str) -> Iterator[str]:
    """Files that are named and do not exist."""
    for text in CODE.findall(prose):
        path = text.partition("::")[0].rstrip(".")
        if not (OF_A_ROOM.fullmatch(path) or OF_OTHERS.fullmatch(path)):
            continue
        if not any(ROOT.glob(path.rstrip("/"))):
            yield f"`{text}`: no such file"


def bad_commands(text: str) -> Iterator[str]:
    """Commands in fenced blocks that the command line does not have."""
    for block in FENCE.findall(text):
        for line in block.splitlines()[1:-1]:
            words = line.removeprefix("$ ")
            if line.startswith("$ ") or words.startswith("envelock "):
                yield from bad_words(shlex.split(words, comments=True))


def bad_words(words: list[str]) -> Iterator[str]:
    """What is wrong with the `envelock` commands of one pipeline."""
    while "envelock" in words:
        words = words[words.index("envelock") + 1 :]
        end = next((place for place, word in enumerate(words) if word in {"|", "&"}), len(words))
        yield from bad_command(words[:end])
        words = words[end:]


def bad_command(words: list[str]) -> Iterator[str]:
    """What is wrong with one command, its words without the program's name."""
    command: click.Command = root
    context = click.Context(root, info_name="envelock")
    options = {option for parameter in root.params for option in parameter.opts}
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None:
            yield f"`{' '.join(['envelock', *words])}`: no command {name}"
            return
        command = found
        options |= {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        option = word.partition("=")[0]
        if len(option) > 1 and option.startswith("-") and option not in options | {"--help"}:
            yield f"`{' '.join(['envelock', *words])}`: no option {option}"


def complaints(document: Path) -> Iterator[str]:
    """What is wrong with one document."""
    text = document.read_text("utf-8")
    prose = FENCE.sub("", text)
    for check in (bad_links(document, prose), bad_paths(prose), bad_commands(text)):
        for complaint in check:
            yield f"{document.relative_to(ROOT)}: {complaint}"


def main() -> int:
    """Check every document; the exit code."""
    found = [complaint for document in documents() for complaint in complaints(document)]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
