import { type AST, ParseError, parseTOML } from "toml-eslint-parser";

type Path = readonly (string | number)[];

type Lines = Map<string, number>;

function pathKey(path: Path): string {
  return JSON.stringify(path);
}

function mark(lines: Lines, path: Path, { loc }: AST.HasLocs): void {
  const key = pathKey(path);
  if (!lines.has(key)) lines.set(key, loc.start.line);
}

/** Marks a path and the tables on the way to it: `[a.b]` also names `a`. */
function markAll(lines: Lines, path: Path, node: AST.HasLocs): void {
  for (let length = 1; length <= path.length; length++) mark(lines, path.slice(0, length), node);
}

function visitPair(lines: Lines, table: Path, { key, value }: AST.TOMLKeyValue): void {
  let path = table;
  for (const part of key.keys) {
    path = [...path, part.type === "TOMLBare" ? part.name : part.value];
    mark(lines, path, part);
  }
  visitValue(lines, path, value);
}

function visitValue(lines: Lines, path: Path, value: AST.TOMLContentNode): void {
  if (value.type === "TOMLInlineTable") {
    for (const pair of value.body) visitPair(lines, path, pair);
  } else if (value.type === "TOMLArray") {
    for (const [index, element] of value.elements.entries()) {
      mark(lines, [...path, index], element);
      visitValue(lines, [...path, index], element);
    }
  }
}

function linesOf(text: string): Lines {
  const lines: Lines = new Map();
  const [program] = parseTOML(text, { tomlVersion: "1.1" }).body;
  for (const node of program.body) {
    if (node.type === "TOMLKeyValue") {
      visitPair(lines, [], node);
    } else {
      markAll(lines, node.resolvedKey, node);
      for (const pair of node.body) visitPair(lines, node.resolvedKey, pair);
    }
  }
  return lines;
}

/**
 * Gives the line (from 1) where a key of a TOML text is written, or that of the innermost table around it
 * that appears at all. Values are never taken from this parser: its own `getStaticTOMLValue` writes to
 * `Object.prototype` where a key is called `__proto__`.
 */
export function tomlLines(text: string): (path: Path) => number | undefined {
  let lines: Lines;
  try {
    lines = linesOf(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    // The other parser accepted this text. An error without its line is better than none.
    if (!(error instanceof ParseError)) throw error;
    return () => undefined;
  }
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const line = lines.get(pathKey(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return undefined;
  };
}
