import { expect, test } from "vitest";
import { Questions } from "../../src/root/questions.ts";

test("G8: of each user one question is answered at a time, and too many are refused; other users do not wait", async () => {
  const questions = new Questions();
  const order: string[] = [];
  let release = (): void => undefined;
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const first = questions.ask(1, async () => {
    await held;
    order.push("first");
  });
  const second = questions.ask(1, async () => order.push("second"));
  await questions.ask(2, async () => order.push("other's"));
  const more = Array.from({ length: 254 }, () => questions.ask(1, async () => undefined));
  await expect(questions.ask(1, async () => undefined)).rejects.toMatchObject({ code: "limit" });
  release();
  await Promise.all([first, second, ...more]);
  expect(order).toEqual(["other's", "first", "second"]);
  await expect(questions.ask(1, async () => "again")).resolves.toBe("again");
});

test("a question that fails is no other's failure", async () => {
  const questions = new Questions();
  const failing = questions.ask(1, async () => {
    throw new Error("not this one");
  });
  const next = questions.ask(1, async () => "this one");
  await expect(failing).rejects.toThrow("not this one");
  await expect(next).resolves.toBe("this one");
});
