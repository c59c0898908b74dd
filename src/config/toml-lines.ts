type Path = readonly (string | number)[];

function pathKey(path: Path): string {
  return JSON.stringify(path);
}

/**
 * Finds the lines of keys in a TOML text, for error messages. The text must have been parsed successfully
 * already: this walks its structure only, and believes that it is sound.
 */
class LineScanner {
  readonly lines = new Map<string, number>();
  private readonly text: string;
  private readonly elements = new Map<string, number>();
  private at = 0;
  private line = 1;

  constructor(text: string) {
    this.text = text;
  }

  scan(): void {
    let table: Path = [];
    for (this.blank(true); this.at < this.text.length; this.blank(true)) {
      if (this.peek() === "[") table = this.header();
      else this.pair(table);
    }
  }

  private peek(): string {
    return this.text[this.at] ?? "";
  }

  private skip(count: number): void {
    const end = Math.min(this.at + count, this.text.length);
    for (; this.at < end; this.at++) if (this.text[this.at] === "\n") this.line++;
  }

  private blank(newlines: boolean): void {
    const white = newlines ? /[ \t\r\n]/ : /[ \t]/;
    while (this.at < this.text.length) {
      if (white.test(this.peek())) this.skip(1);
      else if (newlines && this.peek() === "#") this.skip(this.untilNewline());
      else return;
    }
  }

  private untilNewline(): number {
    const end = this.text.indexOf("\n", this.at);
    return (end === -1 ? this.text.length : end) - this.at;
  }

  private mark(path: Path): void {
    const key = pathKey(path);
    if (!this.lines.has(key)) this.lines.set(key, this.line);
  }

  private header(): Path {
    const many = this.text.startsWith("[[", this.at);
    this.skip(many ? 2 : 1);
    const names = this.dottedKey();
    this.skip(many ? 2 : 1);
    let path: Path = [];
    names.forEach((name, index) => {
      path = [...path, name];
      this.mark(path);
      const key = pathKey(path);
      const last = index === names.length - 1;
      if (last && many) this.elements.set(key, (this.elements.get(key) ?? -1) + 1);
      const element = this.elements.get(key);
      if (element !== undefined) path = [...path, element];
    });
    this.mark(path);
    return path;
  }

  private pair(table: Path): void {
    let path = table;
    for (const name of this.dottedKey()) {
      path = [...path, name];
      this.mark(path);
    }
    this.skip(1);
    this.value(path);
  }

  /** Reads a dotted key and the blanks after it, up to `=` or `]`. */
  private dottedKey(): string[] {
    const names: string[] = [];
    do {
      if (names.length > 0) this.skip(1);
      this.blank(false);
      names.push(this.name());
      this.blank(false);
    } while (this.peek() === ".");
    return names;
  }

  private name(): string {
    const quote = this.peek();
    const start = this.at;
    if (quote === '"' || quote === "'") {
      this.string();
      const text = this.text.slice(start, this.at);
      if (quote === "'") return text.slice(1, -1);
      try {
        return String(JSON.parse(text));
      } catch {
        return text.slice(1, -1);
      }
    }
    const bare = /[A-Za-z0-9_-]*/y;
    bare.lastIndex = start;
    const name = bare.exec(this.text)?.[0] ?? "";
    this.skip(Math.max(1, name.length));
    return name;
  }

  private string(): void {
    const quote = this.peek();
    const triple = this.text.startsWith(quote.repeat(3), this.at);
    const end = triple ? quote.repeat(3) : quote;
    this.skip(end.length);
    while (this.at < this.text.length && !this.text.startsWith(end, this.at)) {
      this.skip(quote === '"' && this.peek() === "\\" ? 2 : 1);
    }
    this.skip(end.length);
    // A multi-line string may end in up to two quotes of its own.
    while (triple && this.peek() === quote) this.skip(1);
  }

  private value(path: Path): void {
    this.blank(false);
    const first = this.peek();
    if (first === '"' || first === "'") this.string();
    else if (first === "[" || first === "{") this.container(path, first === "[" ? "]" : "}");
    else while (this.at < this.text.length && !/[,\]}#\r\n]/.test(this.peek())) this.skip(1);
  }

  private container(path: Path, close: string): void {
    this.skip(1);
    let index = 0;
    for (;;) {
      this.blank(true);
      if (this.at >= this.text.length || this.peek() === close) break;
      if (this.peek() === ",") {
        this.skip(1);
      } else if (close === "]") {
        const element = [...path, index++];
        this.mark(element);
        this.value(element);
      } else {
        this.pair(path);
      }
    }
    this.skip(1);
  }
}

/**
 * Gives the line (from 1) where a key of a sound TOML text is written, or that of the innermost table around it
 * that is written at all.
 */
export function tomlLines(text: string): (path: Path) => number | undefined {
  const scanner = new LineScanner(text);
  scanner.scan();
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const line = scanner.lines.get(pathKey(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return undefined;
  };
}
