/** How the demo prints: headings, steps, quoted text. Colour only on a terminal that wants it. */

const colourful = process.stdout.isTTY && process.env.NO_COLOR === undefined && process.env.TERM !== "dumb";

function paint(code: number) {
  return (text: string): string => (colourful ? `\x1b[${code}m${text}\x1b[0m` : text);
}

export const bold = paint(1);
export const dim = paint(2);
const red = paint(31);
export const green = paint(32);
const yellow = paint(33);
const blue = paint(34);

function print(line = ""): void {
  process.stdout.write(`${line}\n`);
}

export function heading(text: string): void {
  print();
  print(bold(text));
}

export function paragraph(text: string): void {
  print(text === "" ? "" : `  ${text}`);
}

/** A check, and whether it passed. */
export function checked(passed: boolean, text: string): void {
  print(`  ${passed ? green("✓") : red("✗ FAILED:")} ${text}`);
}

/** Quoted text: a command's output, an expression. */
export function quote(text: string): void {
  for (const line of text.trimEnd().split("\n")) print(`  ${dim("│")} ${line}`);
}

export function command(text: string): void {
  print(`  ${blue("$")} ${text}`);
}

const verdictColour = { forward: green, answer: blue, deny: red } as const;

/** One request as recorded in the audit. */
export function auditLine(
  verdict: keyof typeof verdictColour,
  operation: string,
  subject: string,
  note: string,
): void {
  const word = { forward: "forwarded", answer: "answered", deny: "denied" }[verdict];
  const rest = [subject, note && yellow(note)].filter((text) => text !== "").join("  ");
  print(`  ${verdictColour[verdict](word.padEnd(10))} ${operation.padEnd(25)} ${rest}`.trimEnd());
}

/** Runs a step that takes a while, and says how long it took. */
export async function step<T>(text: string, work: () => Promise<T>): Promise<T> {
  const started = performance.now();
  if (colourful) process.stdout.write(`  … ${text}`);
  try {
    const result = await work();
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    if (colourful) process.stdout.write("\r\x1b[K");
    print(`  ${green("✓")} ${text} ${dim(`(${seconds} s)`)}`);
    return result;
  } catch (error) {
    if (colourful) process.stdout.write("\r\x1b[K");
    print(`  ${red("✗")} ${text}`);
    throw error;
  }
}
