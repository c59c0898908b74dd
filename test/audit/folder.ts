import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach } from "vitest";
import type { AuditRecord } from "../../src/audit/record.ts";

/** A fresh folder for each test of the file; `folder.path` is where the audit goes. */
export function auditFolder(): { readonly path: string } {
  let base = "";
  beforeEach(() => {
    base = mkdtempSync(join(tmpdir(), "audit-"));
  });
  afterEach(() => {
    rmSync(base, { recursive: true });
  });
  return {
    get path() {
      return join(base, "audit");
    },
  };
}

export const OUTER = "/nix/store/00000000000000000000000000000000-outer.drv";

export function storePath(number: number): string {
  return `/nix/store/${String(number).padStart(32, "0")}-path-${number}`;
}

/** A request with everything that is usual, and what the test is about. */
export function request(facts: Partial<AuditRecord> = {}): AuditRecord {
  return {
    kind: "request",
    time: 1_763_800_000_000_000,
    op: "IsValidPath",
    sandbox: "sandbox-one",
    outer: OUTER,
    connection: 1,
    uid: 30001,
    pid: 4242,
    protocol: "1.38",
    verdict: "answer",
    subjects: [storePath(1)],
    durationUs: 40,
    bytesIn: 100,
    bytesOut: 16,
    ...facts,
  };
}
