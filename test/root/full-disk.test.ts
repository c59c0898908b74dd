/** What root writes for others while the disk is full: all of it, or nothing that anybody could take for it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const program = join(import.meta.dirname, "../../src/contract/trusted-file.ts");

test("G6: a file of which only a part fits does not take the place of the one before", () => {
  const folder = mkdtempSync(join(tmpdir(), "nix-broker-full-"));
  try {
    const file = join(folder, "ended");
    writeFileSync(file, "before", { mode: 0o644 });
    const write = `import { writeTrusted } from ${JSON.stringify(program)};
      try { writeTrusted(${JSON.stringify(file)}, "x".repeat(100_000), 0o640); } catch (error) { console.log(error.code); }`;
    // As where the disk has no space left: the first call writes less than it is asked to, and the next one fails.
    const limited = `ulimit -f 8; exec ${process.execPath} --input-type=module -e '${write}'`;
    expect(spawnSync("bash", ["-c", limited], { encoding: "utf8" }).stdout).toBe("EFBIG\n");
    expect(readFileSync(file, "utf8")).toBe("before");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
