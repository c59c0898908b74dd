import { expect, test } from "vitest";
import { tomlLines } from "../../src/config/toml-lines.ts";

const text = `# first
a = 1
"quoted key" = '''
b = not a key
'''
c.d = [ # comment ]
  1, "two ]", [3,
  4],
]
[t]
e = { f = 1, g = "}" }

  [ t . "u v" ]
h = """x\\"""y""""
i = 2026-01-01T00:00:00Z
[[list]]
j = 1
[list.sub]
k = 1
[[list]]
j = 2
`;

test.each([
  [["a"], 2],
  [["quoted key"], 3],
  [["c"], 6],
  [["c", "d"], 6],
  [["c", "d", 1], 7],
  [["c", "d", 2, 1], 8],
  [["t"], 10],
  [["t", "e", "g"], 11],
  [["t", "u v"], 13],
  [["t", "u v", "h"], 14],
  [["t", "u v", "i"], 15],
  [["list", 0], 16],
  [["list", 0, "j"], 17],
  [["list", 0, "sub", "k"], 19],
  [["list", 1], 20],
  [["list", 1, "j"], 21],
])("%j is on line %d", (path, line) => {
  expect(tomlLines(text)(path)).toBe(line);
});

test("a key that is not written has the line of the table around it", () => {
  expect(tomlLines(text)(["list", 1, "missing", "deep"])).toBe(20);
  expect(tomlLines(text)(["b"])).toBeUndefined();
});

test("a key called __proto__ has a line like any other, and changes no object", () => {
  expect(tomlLines('[a.__proto__]\nb = 1\n["__proto__"]\n')(["a", "__proto__", "b"])).toBe(2);
  expect(Object.prototype).not.toHaveProperty("b");
});

test("a byte order mark moves no line", () => {
  expect(tomlLines("\uFEFFa = 1\nb = 2")(["b"])).toBe(2);
});

test("a text that this parser alone takes for wrong has no lines", () => {
  expect(tomlLines("a = 1\n=")(["a"])).toBeUndefined();
});
