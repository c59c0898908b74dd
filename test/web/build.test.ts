/** The page of a real service, while a real build with a nested one runs. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RecursiveLab } from "../../lab/recursive.ts";
import { nestedBuild, SHARED, serviceConfig } from "../audit/nested-build.ts";
import { type Browser, startBrowser } from "./browser.ts";

let browser: Browser;
let made: RecursiveLab;
beforeAll(async () => {
  browser = await startBrowser();
  made = await RecursiveLab.start("2.34", {
    serviceConfig: `${serviceConfig}\n[web]\nlisten = "127.0.0.1:0"\n`,
    sandboxPaths: [SHARED],
  });
  await made.daemon.run(["mkdir", "-p", SHARED]);
});
afterAll(async () => {
  await made?.stop();
  await browser?.close();
});

test("a nested build appears while it runs, and a denial is found in three key presses", async () => {
  const log = made.broker?.log() ?? "";
  const at = /"at":"([^"]+)"[^\n]*"serving the page"/.exec(log)?.[1];
  const token = readFileSync(
    made.daemon.hostPath("/var/lib/nix-broker/service/state/web-token"),
    "utf8",
  ).trim();
  const { page, errors } = await browser.open(`http://${at}/#token=${token}`);
  await page.waitForSelector("#link[data-state=live]");

  // It ends when the page has shown it.
  const build = made.daemon.build(nestedBuild({ waits: true }));
  await page.waitForSelector(".sandbox[data-state=running]:has(b:text('middle'))");
  await page.waitForSelector(".build[data-state=running]:has(span:text('leaf'))");
  await made.daemon.run(["touch", `${SHARED}/go`]);
  await build;
  await page.waitForSelector(".build[data-state=done]:has(span:text('leaf'))");
  await page.waitForSelector(".sandbox[data-state=done]:has(b:text('middle'))");
  await page.waitForSelector(".sandbox[data-state=ended]:has(b:text('outer'))");

  await page.keyboard.press("d");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#details[open]");
  expect(await page.textContent("#details")).toContain("a sandbox has no authority over the store");
  expect(await page.textContent("#details")).toContain("CollectGarbage");
  expect(errors).toEqual([]);
  await page.close();
});
