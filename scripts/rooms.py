#!/usr/bin/env python3
"""Draws the house: its floors, the rooms on them, and which rooms each of them imports.

Read from the `use` and `mod` lines and the paths of src/ and core/src/; tests are left out.
Then come arrows that point up and circles, of rooms and of the files of one room: with any
of them the exit code is 1. `rooms.py audit` draws the files of one room. `--root` is for tests.
"""
import argparse, pathlib, re, sys

LITERAL = re.compile(r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"'
                     r"|b?'(?:\\[^\n]{1,8}?|[^'\\\n])'", re.S)
TEST = re.compile(r'#\[cfg\(test\)\]\s*(?:#\[path = "(.*)\.rs"\]\s*)?[^{;]*?\bmod\s+(\w+);')
USE = re.compile(r"\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:.])((?:r#)?\w+(?:::\w+)+)")


def without_tests(code):
    while found := re.search(r"#\[cfg\(test\)\]", code):
        depth = 0
        for end in range(found.start(), len(code)):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            if depth == 0 and code[end] in "};":
                break
        code = code[: found.start()] + code[end + 1 :]
    return code


def read(root):
    """The code of each module, and its file's name. A module is the tuple of its names."""
    code, names, tests = {}, {}, set()
    for home in ("core/src", "src"):
        for file in sorted((root / home).rglob("*.rs")):
            text, path = file.read_text(), file.relative_to(root / home)
            module = tuple(part for part in path.with_suffix("").parts if part not in ("mod", "lib"))
            tests |= {path.parts[:-1] + (by_path,) if by_path else module + (name,)
                      for by_path, name in TEST.findall(text)}
            code[module] = code.get(module, "") + without_tests(LITERAL.sub(" ", text))
            names[module] = str(path)
    is_test = lambda module: any(module[: len(test)] == test for test in tests)
    return {module: text for module, text in code.items() if not is_test(module)}, names


def leaves(tree):
    """`a::{b, c as d}` is a::b, known here as b, and a::c, known as d."""
    opens = tree.find("{")
    if opens < 0:
        path, _, name = tree.partition(" as ")
        path = [part for part in path.strip().split("::") if part not in ("", "*")]
        path = path[:-1] if len(path) > 1 and path[-1] == "self" else path
        return [(path, name.strip() or path[-1])] if path else []
    parts, depth = [""], 0
    for char in tree[opens + 1 : tree.rindex("}")]:
        depth += {"{": 1, "}": -1}.get(char, 0)
        parts = parts + [""] if char == "," and depth == 0 else parts[:-1] + [parts[-1] + char]
    return [leaf for part in parts if part.strip() for leaf in leaves(tree[:opens] + part.strip())]


def arrows(code):
    """What each module names: modules, after imports and re-exports have been followed."""
    uses = {module: [leaf for use in USE.findall(text) for leaf in leaves(use)] for module, text in code.items()}
    known = {module: {name: path for path, name in found} for module, found in uses.items()}

    def resolve(at, path, within=8):
        at, path = list(at), list(path)
        if path[0] in ("crate", "watchllm_core"):
            at, path = [], path[1:]
        while path and path[0] in ("super", "self"):
            at, path = at[: -1 if path[0] == "super" else None], path[1:]
        while path and (*at, path[0]) in code:
            at, path = at + path[:1], path[1:]
        here = known[tuple(at)].get(path[0]) if path and within else None
        return resolve(at, here + path[1:], within - 1) if here and here != path else tuple(at)

    found = {}
    for module, text in code.items():
        paths = [path for path, _ in uses[module]] + [path.split("::") for path in PATH.findall(USE.sub(" ", text))]
        found[module] = {resolve(module, path) for path in paths} - {module}
    return found


def circles(graph):
    def reached(start):
        seen, todo = set(), [start]
        while todo:
            new = graph.get(todo.pop(), set()) - seen
            seen, todo = seen | new, todo + list(new)
        return seen
    reach = {node: reached(node) for node in graph}
    return sorted({tuple(sorted(n for n in reach[node] if node in reach.get(n, ()))) for node in graph} - {()})


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("room", nargs="?")
    options.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent)
    options = options.parse_args()
    code, names = read(options.root)
    files = arrows(code)
    print(len(code))
    g={}
    for room in sorted({m[:1] for m in code}):
        inside={m:{t for t in ts if t[:1]==room} for m,ts in files.items() if m[:1]==room}
        g[room]={t[:1] for m in inside for t in files[m]}-{room}
        for c in circles(inside): 
            print('CIRCLE', [names[m] for m in c])
            for m in c: print('    ', names[m], '->', [names[t] for t in inside[m] if t in c])
    print({'/'.join(k):['/'.join(x) for x in v] for k,v in g.items()})
    print('rooms', circles(g))
main()
