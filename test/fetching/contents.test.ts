/** What a fetcher makes of a download, which may be gigabytes: it hears meanwhile of a service that hangs up. */
import { createHash } from "node:crypto";
import { Header } from "tar";
import { expect, test } from "vitest";
import type { FetchJob } from "../../src/contract/fetch-job.ts";
import { contentsOf, type Outcome } from "../../src/fetcher/contents.ts";
import { Allowance } from "../../src/fetcher/spool.ts";
import { writeNar } from "../store/nar.ts";

const MiB = 1024 * 1024;
const contents = Buffer.alloc(8 * MiB, "contents");

/** @returns also how often the event loop came round meanwhile */
async function madeOf(
  bytes: Buffer,
  job: Pick<FetchJob, "hash" | "hashed" | "shapes" | "sent">,
): Promise<{ outcome: Outcome; turns: number }> {
  const allowance = new Allowance(4 * bytes.length);
  const spool = allowance.newSpool();
  spool.append(bytes);
  const digest = createHash("sha256").update(bytes).digest("hex");
  let turns = 0;
  let outcome: Outcome | undefined;
  const making = contentsOf({ spool, digest }, job, allowance).then((made) => {
    outcome = made;
  });
  while (!outcome) {
    await new Promise((resolve) => setImmediate(resolve));
    turns++;
  }
  await making;
  return { outcome, turns };
}

function read({ found }: Outcome): Buffer {
  const bytes = Buffer.concat([...(found?.pieces() ?? [])]);
  expect(bytes.length).toBe(found?.length);
  return bytes;
}

test("while it is hashed", async () => {
  const nar = writeNar({ type: "regular", contents });
  const { outcome, turns } = await madeOf(contents, {
    hash: { algorithm: "sha256", digest: createHash("sha256").update(nar).digest("hex") },
    hashed: "nar",
    shapes: ["executable", "file"],
    sent: "nar",
  });
  expect(read(outcome).equals(nar)).toBe(true);
  expect(turns).toBeGreaterThan(8);
});

test("while it is unpacked", async () => {
  const entry = (path: string): readonly Buffer[] => {
    const header = Buffer.alloc(512);
    const size = contents.length;
    new Header({ path, type: "File", mode: 0o644, size, mtime: new Date(0) }).encode(header);
    return [header, contents];
  };
  const archive = Buffer.concat([...entry("one"), ...entry("other"), Buffer.alloc(1024)]);
  const { outcome, turns } = await madeOf(archive, {
    hash: { algorithm: "sha256", digest: "0".repeat(64) },
    hashed: "nar",
    shapes: ["stripped"],
    sent: "nar",
  });
  // So it is not hashed.
  expect(outcome).toMatchObject({ reason: expect.stringContaining("one folder alone") });
  expect(turns).toBeGreaterThan(8);
});

test("a file that is named by its own hash is sent to older daemons as a NAR", async () => {
  const { outcome } = await madeOf(contents, {
    hash: { algorithm: "sha256", digest: createHash("sha256").update(contents).digest("hex") },
    hashed: "flat",
    shapes: ["file"],
    sent: "nar",
  });
  expect(read(outcome).equals(writeNar({ type: "regular", contents }))).toBe(true);
});
