/** QueryMissing on views of any kind: what it tells, and how much work it is. */
import { expect, test } from "vitest";
import { missingInView } from "../../src/policy/missing.ts";
import type { PathInfo, ViewQueries } from "../../src/policy/view-queries.ts";
import type { Derivation } from "../../src/store/derivation.ts";
import { noPause } from "../../src/store/slices.ts";
import { attributesOf } from "../store/derivation-text.ts";

const NEWEST = 38;
function base(name: string): string {
  return `/nix/store/${"0".repeat(32)}-${name}`;
}

interface Made {
  readonly outputs: readonly string[];
  readonly inputs?: Readonly<Record<string, string[]>>;
}

/** A view of derivations and of the named outputs; counts what it is asked. */
class FakeView implements ViewQueries {
  readonly storeDir = "/nix/store";
  /** Paths that were asked about, and derivations that were read. */
  asked = 0;
  /** In how many questions. */
  questions = 0;
  /** Whether derivations need not be read to be known. */
  private readonly readBefore: boolean;
  private readonly made: Readonly<Record<string, Made>>;
  private readonly present: ReadonlySet<string>;

  constructor(made: Readonly<Record<string, Made>>, present: readonly string[], readBefore = false) {
    this.readBefore = readBefore;
    this.made = made;
    this.present = new Set(present.map(base));
  }

  info(path: string): PathInfo | undefined {
    return this.has(path) ? { path, narHash: "", narSize: 0, references: [], contentAddress: "" } : undefined;
  }

  async among(paths: readonly string[]): Promise<ReadonlySet<string>> {
    this.questions++;
    this.asked += paths.length;
    return new Set(paths.filter((path) => this.has(path)));
  }

  has(path: string): boolean {
    return this.present.has(path) || path.slice(base("").length) in this.made;
  }

  async outputs(path: string): Promise<ReadonlyMap<string, string> | undefined> {
    const derivation = await this.derivation(path);
    return derivation && new Map([...derivation.outputs].map(([name, output]) => [name, output.path]));
  }

  async derivation(path: string): Promise<Derivation | undefined> {
    this.questions++;
    this.asked++;
    return this.parsed(path);
  }

  remembered(path: string): Derivation | undefined {
    return this.readBefore ? this.parsed(path) : undefined;
  }

  private parsed(path: string): Derivation | undefined {
    const name = path.slice(base("").length);
    const made = this.made[name];
    if (!made) return undefined;
    const output = (of: string) => ({ path: base(`${name}-${of}`), hashAlgorithm: "", hash: "" });
    return {
      outputs: new Map(made.outputs.map((of) => [of, output(of)])),
      inputDrvs: new Map(Object.entries(made.inputs ?? {}).map(([of, names]) => [base(of), names])),
      inputSrcs: [],
      system: "s",
      builder: "b",
      attributes: attributesOf([]),
    };
  }

  all() {
    return [];
  }
  byHashPart() {
    return undefined;
  }
  referrers() {
    return [];
  }
  derivers() {
    return [];
  }
}

async function ask(view: FakeView, ...targets: string[]) {
  const { willBuild, unknown } = await missingInView(targets, view, NEWEST, noPause);
  return { willBuild: willBuild.sort(), unknown: unknown.sort() };
}

test("of derivations those are built of which an output is wanted that is not there, and what they need", async () => {
  const view = new FakeView(
    {
      "top.drv": { outputs: ["out", "dev"], inputs: { "mid.drv": ["out"], "done.drv": ["out"] } },
      "mid.drv": { outputs: ["out"], inputs: { "done.drv": ["lib"], "gone.drv": ["out"] } },
      "done.drv": { outputs: ["out", "lib"], inputs: { "gone.drv": ["out"] } },
    },
    ["top.drv-dev", "done.drv-out", "done.drv-lib", "file"],
  );
  expect(await ask(view, `${base("top.drv")}!dev`)).toEqual({ willBuild: [], unknown: [] });
  expect(
    await ask(view, `${base("top.drv")}!dev`, `${base("top.drv")}!*`, base("file"), base("other")),
  ).toEqual({
    willBuild: [base("mid.drv"), base("top.drv")],
    unknown: [base("gone.drv"), base("other")],
  });
  expect((await ask(view, `${base("top.drv")}!nothing`)).willBuild).toContain(base("top.drv"));
});

test("G8: a derivation that is named many times is looked up once, and the event loop is not blocked", async () => {
  const outputs = Array.from({ length: 3000 }, (_, i) => `o${i}`);
  for (const present of [[], outputs.map((name) => `m.drv-${name}`)]) {
    const view = new FakeView({ "m.drv": { outputs } }, present);
    let pauses = 0;
    const pace = {
      due: true,
      pause: async () => {
        pauses++;
      },
    };
    const targets = Array.from({ length: 20_000 }, (_, i) => `${base("m.drv")}!o${i % 3000},o${i % 2999}`);
    await missingInView(targets, view, NEWEST, pace);
    expect(view.asked).toBe(1 + 3000);
    expect(pauses).toBeGreaterThan(20_000 / 64);
  }
});

/** Each needs the one before it, and the last one a file that nobody has. */
function chain(length: number, present: readonly string[] = []): FakeView {
  const made = Object.fromEntries(
    Array.from({ length }, (_, i) => [
      `${i}.drv`,
      { outputs: ["out"], inputs: i === 0 ? {} : { [`${i - 1}.drv`]: ["out"] } },
    ]),
  );
  return new FakeView(made, present, true);
}

test("a deep graph that was read before takes a few questions, not some for each derivation", async () => {
  const view = chain(2000);
  expect((await ask(view, `${base("1999.drv")}!out`)).willBuild).toHaveLength(2000);
  expect(view.questions).toBeLessThan(30);
});

test("what is below something that is there is hardly asked about", async () => {
  const view = chain(2000, ["1900.drv-out"]);
  expect((await ask(view, `${base("1999.drv")}!out`)).willBuild).toHaveLength(99);
  expect(view.asked).toBeLessThan(2 * 3 * 100);
});
