import { expect, test } from "vitest";
import { Refusal } from "../../src/sandbox/refusal.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { type WaitReason, Waits } from "../../src/sandbox/waits.ts";

function path(name: string) {
  return `/nix/store/${"0".repeat(32)}-${name}`;
}
function sandbox(id: string) {
  return { id } as Sandbox;
}

test("G6: an output is released once the build that holds it has ended and its references are registered", async () => {
  const waits = new Waits({ buildUsers: Number.POSITIVE_INFINITY, onRefused() {} });
  const build = sandbox("build");
  waits.began(build, [path("out"), path("dev")]);
  expect(await waits.released([path("other")])).toBe(false);
  let released: boolean | undefined;
  const waiting = waits.released([path("other"), path("dev")]).then((held) => {
    released = held;
  });
  waits.began(sandbox("another"), [path("x")]);
  await new Promise((resolve) => setImmediate(resolve));
  expect(released).toBeUndefined();
  waits.ended(build);
  await waiting;
  expect(released).toBe(true);
  expect(await waits.released([path("dev")])).toBe(false);
});

test("G6: outputs whose references could not be registered stay held, but their build user is free", async () => {
  const waits = new Waits({ buildUsers: 2, onRefused() {} });
  const [build, next] = [sandbox("build"), sandbox("next")];
  waits.began(build, [path("out")]);
  const release = waits.hold([path("out")]);
  waits.ended(build);
  waits.began(next, []);
  waits.begin(next, new Set([path("out")]))();
  let released = false;
  const waiting = waits.released([path("out")]).then(() => {
    released = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(released).toBe(false);
  release();
  await waiting;
});

test("an output that is held for too long is refused, with the reason", async () => {
  const refused: WaitReason[] = [];
  const waits = new Waits({ buildUsers: 1, patience: 10, onRefused: (reason) => refused.push(reason) });
  waits.began(sandbox("build"), [path("out")]);
  const refusal = await waits.released([path("out")]).catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(Refusal);
  expect((refusal as Refusal).message).toContain(
    `'${path("out")}' is the output of a build whose references`,
  );
  expect(refused).toEqual(["unregistered"]);
});

test("G9: a wait that could not end, and one for the last build user, are refused and counted", () => {
  const refused: WaitReason[] = [];
  const waits = new Waits({ buildUsers: 2, onRefused: (reason) => refused.push(reason) });
  const [first, second] = [sandbox("first"), sandbox("second")];
  waits.began(first, [path("a")]);
  expect(() => waits.begin(first, new Set([path("a")]))).toThrow("the build that asks for it");
  expect(refused).toEqual(["cycle"]);
  waits.began(second, [path("b")]);
  waits.begin(first, new Set([path("c")]))();
  expect(() => waits.begin(second, new Set([path("c")]))).toThrow("hooks.build_users");
  expect(refused).toEqual(["cycle", "build_users"]);
});
