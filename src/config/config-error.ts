/** One thing that is wrong with a configuration. */
export interface ConfigProblem {
  /** The line of the file, from 1, if it is known. */
  readonly line: number | undefined;
  /** The key, dotted (`listen[0].path`), or `""` for the file as a whole. */
  readonly key: string;
  /** What is wrong, what was expected, and what to do if that is not obvious. */
  readonly message: string;
}

function problemText({ line, key, message }: ConfigProblem): string {
  return [line === undefined ? "" : `line ${line}: `, key === "" ? "" : `${key}: `, message].join("");
}

/** A message of several lines as one, for logs and lists. */
export function inOneLine(message: string): string {
  return message.replace(/:\s*\n\s*/g, ": ").replace(/\s*\n\s*/g, "; ");
}

/** A configuration that cannot be used. Names all problems that were found. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  /** The file, or `undefined` where no file is involved. */
  readonly file: string | undefined;
  readonly problems: readonly ConfigProblem[];

  constructor(file: string | undefined, problems: readonly ConfigProblem[]) {
    const texts = [...problems].sort((a, b) => (a.line ?? 0) - (b.line ?? 0)).map(problemText);
    super(
      file === undefined
        ? texts.join("\n")
        : `${file} cannot be used:${texts.map((text) => `\n  ${text}`).join("")}`,
    );
    this.file = file;
    this.problems = problems;
  }
}
