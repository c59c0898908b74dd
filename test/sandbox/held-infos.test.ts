import { expect, test } from "vitest";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import { HeldInfos } from "../../src/sandbox/held-infos.ts";

function info(name: string, references: readonly string[] = []): PathInfo {
  const path = `/nix/store/${"0".repeat(32)}-${name}`;
  return { path, narHash: "0".repeat(64), narSize: 120, references, contentAddress: "text:sha256:x" };
}

test("what was added is known while the connection that holds it is open", () => {
  const held = new HeldInfos();
  const holder = { destroyed: false };
  const added = info("added");
  held.add(added, holder);
  expect(held.get(added.path)).toBe(added);
  holder.destroyed = true;
  expect(held.get(added.path)).toBeUndefined();
});

test("the connection that added it last holds it", () => {
  const held = new HeldInfos();
  const [first, second] = [{ destroyed: false }, { destroyed: false }];
  const added = info("added");
  held.add(added, first);
  held.add(added, second);
  first.destroyed = true;
  expect(held.get(added.path)).toBe(added);
});

test("what is not content-addressed can change, and is asked for each time", () => {
  const held = new HeldInfos();
  const added = { ...info("imported"), contentAddress: "" };
  held.add(added, { destroyed: false });
  expect(held.get(added.path)).toBeUndefined();
});

test("the oldest are forgotten when there are too many, by their references too", () => {
  const held = new HeldInfos();
  const holder = { destroyed: false };
  const references = Array.from({ length: 24_000 }, (_, i) => info(`reference-${i}`).path);
  const added = [info("a", references), info("b", references), info("c", references)];
  for (const each of added) held.add(each, holder);
  expect(added.map(({ path }) => held.get(path) !== undefined)).toEqual([false, true, true]);
});
