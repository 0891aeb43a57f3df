#!/usr/bin/env python3
"""Draws the house: its floors, the rooms on them, what each room imports; then what is wrong.

Run it where src/ is; `scripts/rooms.py audit` draws the files of one room. It reads the `use` and
`mod` lines and the paths of src/ and core/src/, tests left out. A file that only passes a name on
does not use it. Wrong is an arrow that points up, and a circle: of rooms, or of the files of one
room. Then the exit code is 1.
"""
import pathlib
import re
import sys

LITERAL = re.compile(r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"'
                     r"|b?'(?:\\[^\n]{1,8}?|[^'\\\n])'|\bpub\([^)]*\)(?! use)", re.S)
TESTS = re.compile(r'#\[cfg\(test\)\]\s*(?:#\[path = "(.*)\.rs"\]\s*)?(?:pub\S*\s+)?mod\s+(\w+);')
TESTS_AT_THE_FOOT = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{.*", re.S)
USE = re.compile(r"(\bpub\b\S*\s+)?\buse\s+([^;]+);")
USE_OR_MOD = re.compile(r"\b(use\s[^;]+|mod\s+\w+);")
PATH = re.compile(r"(?<![\w:])\w+(?:::\w+)+")


def read(root):
    """The code of each module, which is the tuple of its names; lib is the empty one."""
    code, tests = {}, []
    for home in (root / "core/src", root / "src"):
        for file in sorted(home.rglob("*.rs")):
            text, parts = file.read_text(), file.relative_to(home).with_suffix("").parts
            module = tuple(part for part in parts if part not in ("mod", "lib"))
            for path, name in TESTS.findall(text):
                tests.append((*parts[:-1], path) if path else (*module, name))
            text = TESTS_AT_THE_FOOT.sub("", LITERAL.sub(" ", TESTS.sub("", text)))
            code[module] = code.get(module, "") + text
    is_test = lambda module: any(module[: len(test)] == test for test in tests)
    return {module: text for module, text in code.items() if not is_test(module)}


def leaves(tree):
    """`a::{b, c as d}` is a::b, known here as b, and a::c, known as d."""
    while group := re.search(r"([\w:]*)\{([^{}]*)\}", tree):
        inner = ",".join(group[1] + part.strip() for part in group[2].split(",") if part.strip())
        tree = tree[: group.start()] + inner + tree[group.end() :]
    for leaf in filter(str.strip, tree.split(",")):
        path, _, name = leaf.strip().partition(" as ")
        path = [part for part in path.split("::") if part not in ("self", "*")]
        yield path, name or path[-1]


def arrows(code):
    """The modules that each module uses. A name that was passed on leads to where it is from."""
    uses = {at: [(*leaf, public) for public, tree in USE.findall(text) for leaf in leaves(tree)]
            for at, text in code.items()}
    known = {at: {name: path for path, name, _ in found} for at, found in uses.items()}

    def resolve(at, path, steps=8):
        if path and path[0] in ("crate", "watchllm_core"):
            at, path = (), path[1:]
        while path and path[0] == "super":  # in a room's own file only within an inline module
            at, path = at[:-1] or at, path[1:]
        while path and (*at, path[0]) in code:
            at, path = (*at, path[0]), path[1:]
        on = known.get(at, {}).get(path[0]) if path and steps else None
        return resolve(at, on + path[1:], steps - 1) if on else at

    def named(at):
        text = USE_OR_MOD.sub(" ", code[at])
        passed_on = lambda name, public: public and not re.search(rf"\b{name}\b", text)
        imports = [path for path, name, public in uses[at] if not passed_on(name, public)]
        return imports + [path.split("::") for path in PATH.findall(text)]

    return {at: {resolve(at, path) for path in named(at)} - {at} for at in code}


def circles(graph):
    """Groups of which each leads to every other."""
    reach = {at: to & graph.keys() for at, to in graph.items()}
    for middle in graph:
        for at in graph:
            reach[at] = reach[at] | reach[middle] if middle in reach[at] else reach[at]
    return {tuple(sorted(to for to in reach[at] if at in reach[to])) for at in graph} - {()}


name = lambda module: "/".join(module) or "lib"
rules = pathlib.Path(__file__).resolve().parent.parent / "tests/house_rules.rs"
floors = re.search(r"FLOORS.*?= \[(.*?)\n\];", rules.read_text(), re.S)[1].split("&[")[1:]
floor = {room: at for at, rooms in enumerate(floors) for room in re.findall(r'"(\w+)"', rooms)}
files, rooms, wrong = arrows(read(pathlib.Path.cwd())), {}, []
for at, to in files.items():
    rooms.setdefault(at[:1], set()).update({other[:1] for other in to} - {at[:1]})
    below = floor[name(at[:1])] + (at[:1] == ("api",))  # api leads: it alone calls its own floor
    up = [other for other in to if other[:1] != at[:1] and floor[name(other[:1])] >= below]
    wrong += [f"arrow up: {name(at)} -> {name(other)}" for other in up]
inside = {room: {at: to for at, to in files.items() if at[:1] == room} for room in rooms}
for graph in (rooms, *inside.values()):
    wrong += ["circle: " + ", ".join(map(name, circle)) for circle in circles(graph)]
for at, to in sorted(inside[(sys.argv[1],)].items() if sys.argv[1:] else rooms.items(),
                     key=lambda arrow: (-floor[name(arrow[0][:1])], arrow)):
    print(f"{floor[name(at[:1])]}  {name(at):24} -> {', '.join(sorted(map(name, to)))}")
print(*wrong, f"{len(files)} files, {len(rooms)} rooms, {len(wrong)} wrong", sep="\n")
sys.exit(bool(wrong) or not files)
