/** The page in a real browser, over an audit that the test writes: how it keeps up, and what it keeps out. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { type Browser, type OpenPage, startBrowser } from "./browser.ts";
import { Site, summary, TOKEN } from "./site.ts";

const SANDBOX = "a".repeat(32);
const outer = `/nix/store/${"0".repeat(32)}-outer.drv`;

let browser: Browser;
let site: Site;
beforeAll(async () => {
  browser = await startBrowser();
});
afterAll(() => browser?.close());
beforeEach(async () => {
  site = new Site();
  site.sandboxes = [summary(SANDBOX, { derivation: outer })];
  await site.start();
});
afterEach(() => site.close());

function storePath(number: number): string {
  return `/nix/store/${String(number).padStart(32, "0")}-path-${number}`;
}

/** So many requests, none like the one before. */
function load(count: number): void {
  for (let i = 0; i < count; i++)
    site.record({ sandbox: SANDBOX, outer, connection: 1, subjects: [storePath(i)], durationUs: 40 });
  site.store.flush();
}

// Selectors and texts, because functions that run in the page would need its types.
function requestCount({ page }: OpenPage, text: string) {
  return page.waitForSelector(text === "" ? "#request-count:empty" : `#request-count:text-is("${text}")`, {
    state: "attached",
  });
}
function places({ page }: OpenPage): Promise<number[]> {
  return page.evaluate(
    '[...document.querySelectorAll("#requests .row")].map((row) => Number(row.dataset.seq))',
  );
}

describe("what is shown", () => {
  test("records come as they are written, and none is lost or told twice when the service comes back", async () => {
    load(300);
    const open = await browser.open(site.address);
    await open.page.keyboard.press("r");
    await requestCount(open, "300");
    load(50);
    await requestCount(open, "350");
    await site.stop();
    await open.page.waitForSelector("#link[data-state=away]");
    load(200);
    await site.start();
    load(25);
    await requestCount(open, "575");
    const shown = await places(open);
    expect(shown.slice(0, 3)).toEqual([575, 574, 573]);
    expect(new Set(shown).size).toBe(shown.length);
    await open.page.close();
  });

  test("a page that was away for longer than the service remembers gets the rest out of the audit", async () => {
    load(10);
    const open = await browser.open(site.address);
    await open.page.keyboard.press("r");
    await requestCount(open, "10");
    await site.stop();
    await open.page.waitForSelector("#link[data-state=away]");
    load(3000);
    await site.start();
    await requestCount(open, "3010");
    await open.page.close();
  });

  test("5 000 records a second: all arrive, keys are heeded meanwhile, and few elements are made", async () => {
    const open = await browser.open(site.address);
    await open.page.keyboard.press("r");
    await open.page.waitForSelector("#link[data-state=live]");
    // As many as the page keeps.
    let ticks = 0;
    const timer = setInterval(() => {
      if (ticks === 40) return;
      load(500);
      ticks++;
    }, 100);
    await open.page.keyboard.press("?");
    await open.page.waitForSelector("#help[open]");
    await open.page.keyboard.press("Escape");
    await open.page.keyboard.press("/");
    await open.page.keyboard.type("path-499");
    await open.page.waitForSelector('#requests:has(.row):not(:has(.row:not(:has-text("path-499"))))');
    while (ticks < 30) await open.page.waitForTimeout(50);
    clearInterval(timer);
    // One of each 500 has this name.
    await requestCount(open, String(ticks));
    await open.page.fill("#search", "");
    await open.page.waitForSelector(`#requests [data-seq='${ticks * 500}']`);
    expect((await places(open)).length).toBeLessThan(100);
    expect(open.errors).toEqual([]);
    await open.page.close();
  });

  test("the timeline of a sandbox that never rests keeps up too, and keeps the newest", async () => {
    load(10);
    const open = await browser.open(site.address);
    await open.page.waitForSelector("#link[data-state=live]");
    await open.page.click(`#tree [data-sandbox="${SANDBOX}"]`);
    await open.page.waitForSelector("#timeline .title");
    for (let i = 0; i < 24; i++) {
      load(500);
      await open.page.waitForTimeout(50);
    }
    await open.page.waitForSelector("#timeline .title:has-text('the newest 5')");
    await open.page.keyboard.press("r");
    await open.page.waitForSelector("#requests [data-seq='12010']");
    expect(open.errors).toEqual([]);
    await open.page.close();
  });

  test("a connection that is dead without being closed is given up, and nothing is missed", async () => {
    load(10);
    let mute = false;
    await browser.context.routeWebSocket(/\/feed/, (page) => {
      const service = page.connectToServer();
      // One that was dead stays so: nothing comes again after a gap.
      let dead = false;
      service.onMessage((message) => {
        dead ||= mute;
        if (!dead) page.send(message);
      });
    });
    const open = await browser.open(site.address);
    await open.page.keyboard.press("r");
    await requestCount(open, "10");
    mute = true;
    load(20);
    await open.page.waitForSelector("#link[data-state=away]");
    mute = false;
    await requestCount(open, "30");
    const shown = await places(open);
    expect(new Set(shown).size).toBe(shown.length);
    await open.page.close();
    await browser.context.unrouteAll();
  });

  test("search and verdict filter; a record is told in full; a denial from before is there", async () => {
    site.record({ op: "CollectGarbage", verdict: "deny", reason: "no authority", sandbox: SANDBOX, outer });
    load(2500);
    site.record({
      op: "AddToStore",
      verdict: "forward",
      subjects: [storePath(7777)],
      sandbox: SANDBOX,
      outer,
    });
    site.store.flush();
    const open = await browser.open(site.address);
    const { page } = open;
    await page.waitForSelector("#denials .row");
    expect(await page.textContent("#denials .row")).toContain("no authority");
    await page.keyboard.press("r");
    await page.keyboard.press("f");
    await requestCount(open, "1");
    await page.keyboard.press("g");
    await page.keyboard.press("Enter");
    expect(await page.textContent("#details")).toContain(storePath(7777));
    await page.keyboard.press("Escape");
    await page.fill("#search", "nothing like this");
    await requestCount(open, "");
    expect(await page.isVisible("#requests .empty")).toBe(true);
    await page.close();
  });

  test("what clients wrote stays text, and what would mislead the eye is made visible", async () => {
    const hostile = '<img src=x onerror="document.title=1"> \u202egnp';
    site.record({
      op: "AddToStore",
      verdict: "deny",
      subjects: [hostile],
      reason: hostile,
      sandbox: SANDBOX,
    });
    site.store.flush();
    const { page, errors } = await browser.open(site.address);
    await page.waitForSelector("#denials .row");
    await page.keyboard.press("Enter");
    for (const place of ["#denials .row", "#details"])
      expect(await page.textContent(place)).toContain('<img src=x onerror="document.title=1"> \\u{202e}gnp');
    expect(await page.title()).toBe("nix-broker");
    expect(errors).toEqual([]);
    await page.close();
  });

  test.each([
    [1360, 860, false],
    [820, 1100, true],
    [390, 844, false],
    [320, 640, true],
  ])("fits %i × %i, dark %s, with no error and no request elsewhere", async (width, height, dark) => {
    load(100);
    site.record({ op: "CollectGarbage", verdict: "deny", reason: "no", sandbox: SANDBOX, outer });
    site.store.flush();
    const { page, errors } = await browser.open(site.address, { width, height, dark });
    await page.waitForSelector("#denials .row");
    for (const view of ["requests", "timeline", "denials"]) {
      await page.click(`[role=tab][data-view=${view}]`);
      await page.waitForSelector(`#${view}:not([hidden])`);
      const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
      expect([view, overflow]).toEqual([view, 0]);
    }
    const ground = await page.evaluate("getComputedStyle(document.body).backgroundColor");
    expect(ground).toBe(dark ? "rgb(16, 20, 28)" : "rgb(243, 245, 249)");
    expect(errors).toEqual([]);
    await page.close();
  });
});

describe("what is kept out", () => {
  /** Whether a WebSocket opens, with these headers and this token. */
  const opens = (token: string | undefined, headers: Record<string, string> = {}): Promise<boolean> => {
    const offered =
      token === undefined
        ? ["nix-broker"]
        : ["nix-broker", `token.${Buffer.from(token).toString("base64url")}`];
    const socket = new WebSocket(`ws://127.0.0.1:${site.port}/feed`, offered, { headers });
    return new Promise((resolve) => {
      socket.on("open", () => {
        socket.terminate();
        resolve(true);
      });
      socket.on("error", () => resolve(false));
    });
  };

  test("the feed needs the token, our name and our origin", async () => {
    expect(await opens(TOKEN)).toBe(true);
    expect(await opens(TOKEN, { Origin: `http://127.0.0.1:${site.port}` })).toBe(true);
    expect(await opens(undefined)).toBe(false);
    expect(await opens(`${TOKEN}x`)).toBe(false);
    expect(await opens(TOKEN, { Origin: "http://evil.example" })).toBe(false);
    expect(await opens(TOKEN, { Origin: "http://127.0.0.1:1" })).toBe(false);
    expect(await opens(TOKEN, { Origin: "null" })).toBe(false);
    expect(await opens(TOKEN, { Host: "evil.example" })).toBe(false);
  });

  test("files come with a strict policy, nothing is kept, and no cookie is set", async () => {
    for (const path of ["/", "/main.js", "/style.css"]) {
      const { status, headers } = await fetch(site.origin + path);
      expect(status).toBe(200);
      expect(headers.get("content-security-policy")).toContain("default-src 'none'; script-src 'self'");
      expect(headers.get("cache-control")).toBe("no-store");
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("set-cookie")).toBeNull();
    }
    for (const path of ["/metrics", "/../token", "/web.ts"])
      expect((await fetch(site.origin + path)).status).toBe(401);
  });

  test("a wrong token is told, and the right one can be given then", async () => {
    load(3);
    const open = await browser.open(`${site.origin}/#token=wrong`);
    const { page } = open;
    await page.waitForSelector("#gate[open]");
    expect(await page.textContent("#link")).toBe("token refused");
    await page.fill("#token", TOKEN);
    await page.keyboard.press("Enter");
    await page.waitForSelector("#link[data-state=live]");
    await requestCount(open, "3");
    expect(new URL(page.url()).hash).toBe("");
    await page.close();
  });

  test("a page from another origin gets nothing, even in the browser that has ours open", async () => {
    load(3);
    const ours = await browser.open(site.address);
    await ours.page.waitForSelector("#link[data-state=live]");
    const thief = createServer((_, response) => {
      response.setHeader("Content-Type", "text/html");
      response.end("<title>thief</title>");
    });
    await new Promise<void>((resolve) => thief.listen(0, "127.0.0.1", resolve));
    const { page } = await browser.open(`http://localhost:${(thief.address() as AddressInfo).port}/`);
    const stolen = `token.${Buffer.from(TOKEN).toString("base64url")}`;
    const loot = await page.evaluate(`(async () => {
      const origin = ${JSON.stringify(site.origin)};
      const read = (path) =>
        fetch(origin + path, { credentials: "include" }).then((answer) => answer.text(), () => undefined);
      const socket = (protocols) =>
        new Promise((resolve) => {
          const made = new WebSocket(origin.replace("http", "ws") + "/feed", protocols);
          made.onmessage = ({ data }) => resolve(data);
          made.onclose = () => resolve(undefined);
        });
      const frame = document.createElement("iframe");
      const framed = new Promise((resolve) => {
        frame.onload = () => resolve(frame.contentDocument?.body.textContent);
      });
      frame.src = origin;
      document.body.append(frame);
      return [
        await read("/"),
        await read("/metrics"),
        await socket(["nix-broker"]),
        await socket(["nix-broker", "${stolen}"]),
        await framed,
        sessionStorage.length + document.cookie.length,
      ];
    })()`);
    expect(loot).toEqual([undefined, undefined, undefined, undefined, undefined, 0]);
    await page.close();
    await ours.page.close();
    thief.close();
  });
});
