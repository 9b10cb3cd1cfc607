"""Words and phrases that the house does not write, found wherever people read: ``make style``.

Reads what git tracks: strings, comments and docstrings of Python, Markdown, templates, and comments
and texts of JavaScript and YAML. Names in code are not its subject; nor is anything in backquotes.
In the package it also reads how the summary of each public function begins: with a verb. A finding
says file, line, the word, and what to write instead.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Pattern, and what to write instead. A space in a pattern stands for any white space, so that a
# phrase is found across a line break.
RULES = {
    # Words of the house.
    r"who(m|so)?ever": "the user, a person, anyone who",
    r"some(body|one)('s)?": "a user, a person, another user",
    r"strangers?('s)?": "another user, an untrusted client or server",
    r"wish(es|ed)?": "extension request; want",
    r"(un)?wanted": "desired, requested",
    r"troubled?": "error, problem",
    r"standings?": "status",
    r"(a|each|every|its|his|her|their|your) stay": "session state",
    r"(is|are|was|were|be|been|being|gets?|got) (not |never |only )?(just )?told"
    r"(?! (apart|to|from|not to|otherwise)\b)": "notify; show, report; pass to a program",
    r"(told|tell(s|ing)?) of|told (anew|again|about)": "notified, warned, announced",
    r"tell(s|ing)? (people|users?|admins?|approvers?|them|him|her|the \w+) "
    r"(of|about|that|what|when|why|in|by)": "notify, report",
    r"(is|are|was|were|be|been|being) (not |never |only )?said": "state, report, show",
    r"places? in (the|a|its|their) (waiting list|queue)": "ticket, or queue position",
    r"(tak(e|es|en|ing)|took|los(e|es|ing)|lost|giv(e|es|en|ing) up|gave up|keep(s|ing)?|kept) "
    r"(a|its|his|her|their|your|one's) places?": "join, leave or keep a position in the queue",
    r"(tak(e|es|ing)|took) (a|another|one) (free )?(slice|card|seat)"
    r"(?! (or card )?(out|back|away)\b)": "allocate",
    # Turns of phrase that nobody in the field uses.
    r"shall": "should, must, will",
    r"for want of": "because there is no, without",
    r"as long again": "extend by the same time",
    r"from when on": "start time, since when",
    r"(is|are|was|were) just being": "is being",
    r"thread of (its|their) own": "background thread, separate thread",
    r"overtaken by nobody": "nothing can overtake",
    r"such (a one|ones)": "it, one like that",
    r"anew": "again",
    r"for ever": "forever, without limit",
    r"(gets?|got) free": "becomes free",
    r"looks? whether": "checks whether",
    r"lest|hitherto|heretofore|whence|thence|hither|thither|wherefore": "plain words of today",
    r"(there|where)(of|in|upon|to|unto|from)": "of it, in it, from it",
    # Slips of an editor.
    r"(\w+ \w+)( \1){2,}": "the phrase once",
    r"(the|an?|its?|is|are|to|of|and|or|for|with|not)(?:\s|\n\s*)\1": "the word once",
}

# What the summary of a public function or method of the package begins with.
_VERBS = """
Accept Add Allocate Answer Apply Approve Ask Become Begin Block Bring Call Cancel Carry Change
Check Choose Claim Clear Close Collect Compare Complete Confirm Connect Continue Copy Count Create
Cut Decide Declare Decorate Deny Describe Destroy Discard Do Drop End Estimate Exclude Expire
Explain Export Extend File Fill Find Finish Follow Forget Format Free Get Give Go Have Hold
Identify Import Insert Join Keep Leave Let Lift Limit Link List Listen Load Lock Log Look Lose Make
Manage Merge Move Name Note Offer Open Overwrite Parse Pass Place Plan Print Protect Put Quarantine
Raise Rank Read Record Redirect Refuse Release Remember Rename Replace Report Request Restart
Restore Return Revoke Run Save Select Send Serve Set Show Shut Sign Simulate Split Start Stop Store
Submit Take Tell Try Turn Undo Use Wait Warn Watch Wire Withdraw Write Yield
"""
VERBS = frozenset(_VERBS.split())
PACKAGE = "jupyterhub_migspawner/"
IMPERATIVE = "a verb in the imperative first, one of VERBS in tests/prose.py"

# Decorators of what is read like an attribute; its summary is a noun phrase.
PROPERTIES = frozenset({"property", "cached_property", "setter", "deleter"})

# Places where a word from above is right: file, the text around it, and why.
ALLOWED = {
    ("jupyterhub_migspawner/cli/demo/files.py", "written anew by every"): (
        "configurations of earlier demos have this line, and it is looked for"
    ),
    ("jupyterhub_migspawner/db/migrations/versions/0004_free_slices.py", "AND wanted AND"): (
        "a column's name at that revision"
    ),
}

# These have the words in them in order to find them.
OWN_FILES = frozenset({"tests/prose.py", "tests/unit/test_prose.py"})


@dataclass(frozen=True)
class Piece:
    """Text that people read. ``lines`` has the number of the line of each of its lines."""

    text: str
    lines: range


@dataclass(frozen=True)
class Finding:
    """One word that is out."""

    file: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: '{self.word}': write {self.instead}"


def _spaced(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE)


EXPRESSIONS = [
    (_spaced(rf"(?<![\w.-])(?:{pattern})(?![\w-])"), instead) for pattern, instead in RULES.items()
]

CODE = re.compile(r"(`+)[^`]+?\1")
FENCE = re.compile(r"^([ >]*)(`{3,}|~{3,}).*?^\1\2[`~]*\s*?$", re.MULTILINE | re.DOTALL)
LINK_TARGET = re.compile(r"\]\([^)\s]*\)")
SCRIPT_PROSE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`""", re.DOTALL
)
QUOTED = re.compile(r'"[^"\n]*"|' + r"'[^'\n]*'")
JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
# Attributes whose values people read, or hear from a screen reader.
SHOWN_ATTRIBUTE = re.compile(r'\b(?:title|alt|placeholder|aria-label|content)="([^"]*)"')
TAG = re.compile(r"<[a-zA-Z/!][^>]*>", re.DOTALL)
YAML_KEY = re.compile(r"^(\s*-?\s*)(?:[\w$-]+|\"[^\"\n]*\"):(?=\s|$)", re.MULTILINE)


def _blank(text: str) -> str:
    """As much empty space, on the same lines."""
    return re.sub(r"[^\n]", " ", text)


def _without(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda found: _blank(found[0]), text)


def _only(pattern: re.Pattern[str], text: str) -> str:
    """What matches, where it is; everything else empty."""
    kept, end = [], 0
    for found in pattern.finditer(text):
        start, stop = found.span(pattern.groups and 1)
        # Names and keys are no prose: what people read has a space in it.
        shown = found[pattern.groups and 1]
        kept += [_blank(text[end:start]), shown if " " in shown else _blank(shown)]
        end = stop
    return "".join([*kept, _blank(text[end:])])


def _whole(text: str) -> Iterator[Piece]:
    yield Piece(text, range(1, text.count("\n") + 2))


class _Strings(ast.NodeVisitor):
    """The strings of a module, each with those that stand beside it joined."""

    def __init__(self) -> None:
        self.found: list[tuple[ast.expr, str]] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append((node, node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        text = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
            else:
                text += "…"
                self.visit(part)
        self.found.append((node, text))

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self.visit(node.value)  # a format specification is no prose


def _python(text: str) -> Iterator[Piece]:
    visitor = _Strings()
    visitor.visit(ast.parse(text))
    for node, value in visitor.found:
        if " " in value:
            last = node.end_lineno or node.lineno
            yield Piece(value, range(node.lineno, last + 1))
    block: list[str] = []
    first = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        alone = not token.line[: token.start[1]].strip()
        if block and not (alone and token.start[0] == first + len(block)):
            yield Piece("\n".join(block), range(first, first + len(block)))
            block = []
        if not block:
            first = token.start[0]
        block.append(token.string.lstrip("#: "))
    if block:
        yield Piece("\n".join(block), range(first, first + len(block)))


def _markdown(text: str) -> Iterator[Piece]:
    yield from _whole(_without(LINK_TARGET, _without(FENCE, text)))


def _template(text: str) -> Iterator[Piece]:
    yield from _whole(_only(SHOWN_ATTRIBUTE, text))
    # Expressions may have texts in them, such as {{ "one" if count == 1 }}.
    text = JINJA.sub(lambda found: _only(QUOTED, found[0]), text)
    yield from _whole(_without(TAG, text))


def _script(text: str) -> Iterator[Piece]:
    yield from _whole(_only(SCRIPT_PROSE, text))


def _yaml(text: str) -> Iterator[Piece]:
    yield from _whole(_without(YAML_KEY, text))


READERS = {
    ".py": _python,
    ".mako": _whole,
    ".md": _markdown,
    ".html": _template,
    ".js": _script,
    ".json": _script,
    ".yaml": _yaml,
    ".sh": _whole,
    ".toml": _whole,
    "Makefile": _whole,
}


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        (each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "")) in PROPERTIES
        for each in function.decorator_list
    )


def _openings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and first word of the summary of each public function and method; not of properties."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _openings(node)
        elif not node.name.startswith("_") and not _is_property(node):
            words = (ast.get_docstring(node) or "").split()
            if words:
                yield node.body[0].lineno, words[0].rstrip(".,:;")


def _line(piece: Piece, start: int, word: str, source: list[str]) -> int:
    """The line of a word, as exactly as can be said of strings that are joined from several."""
    ahead = piece.text[:start].count("\n")
    if len(piece.lines) == piece.text.count("\n") + 1:
        return piece.lines[ahead]
    first = word.split()[0]
    return next((n for n in piece.lines if first in source[n - 1]), piece.lines[0])


def reader(file: str) -> Callable[[str], Iterator[Piece]] | None:
    """What finds the prose in a file; None where there is none to read."""
    return READERS.get(Path(file).suffix) or READERS.get(Path(file).name)


def findings(file: str, text: str) -> list[Finding]:
    """What in a file is out, by line. ``file`` is its path inside the repository."""
    read = reader(file)
    source = text.splitlines()
    listed = set()
    for piece in read(text) if read else ():
        prose = _without(CODE, piece.text)
        allowed = [
            found.span()
            for where, context in ALLOWED
            if where == file
            for found in _spaced(re.escape(context).replace(r"\ ", " ")).finditer(prose)
        ]
        for expression, instead in EXPRESSIONS:
            for match in expression.finditer(prose):
                if any(start <= match.start() < stop for start, stop in allowed):
                    continue
                word = " ".join(match[0].split())
                line = _line(piece, match.start(), match[0], source)
                listed.add(Finding(file, line, word, instead))
    if file.startswith(PACKAGE) and file.endswith(".py"):
        openings = _openings(ast.parse(text))
        listed |= {Finding(file, *each, IMPERATIVE) for each in openings if each[1] not in VERBS}
    return sorted(listed, key=lambda finding: (finding.line, finding.word))


def main() -> int:
    """Print all findings. Returns 1 if there are any, else 0."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    wrong = 0
    for file in sorted(set(listed.stdout.splitlines()) - OWN_FILES):
        if reader(file) and (ROOT / file).is_file():
            found = findings(file, (ROOT / file).read_text("utf-8"))
            print(*found, sep="\n", end="\n" if found else "")
            wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
