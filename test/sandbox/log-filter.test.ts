import { expect, test } from "vitest";
import { ACTIVITY_BUILD, RESULT_BUILD_LOG_LINE } from "../../src/protocol/log-messages.ts";
import { LogFilter } from "../../src/sandbox/forward/log-filter.ts";

const derivation = `/nix/store/${"0".repeat(32)}-x.drv`;

test.each([21, 38])("G8: an endless log line is never held in full for a client [protocol 1.%i]", (minor) => {
  const sent: Buffer[] = [];
  const filter = new LogFilter({
    dialect: { minor, features: new Set(), storeDir: "/nix/store" },
    clientMinor: minor,
    send(message) {
      sent.push(message);
      return true;
    },
    visible: () => true,
    secret: () => false,
    shown: () => undefined,
    hidden: () => undefined,
  });
  const fields = (value: string) => [{ tag: 1 as const, value }];
  filter.take({ kind: "start", id: 1n, type: ACTIVITY_BUILD, text: "", fields: fields(derivation) });
  const line = `the beginning${"a".repeat(8 * 1024 * 1024)}`;
  filter.take({ kind: "result", id: 1n, type: RESULT_BUILD_LOG_LINE, fields: fields(line) });
  filter.finish();
  const told = Buffer.concat(sent);
  expect(told.includes("the beginning")).toBe(true);
  expect(told.length).toBeLessThan(1024 * 1024);
});
