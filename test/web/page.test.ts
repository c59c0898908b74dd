/** The page in a real browser, over an audit that the test writes: how it keeps up, and what it keeps out. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { type Browser, type OpenPage, press, startBrowser } from "./browser.ts";
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
    site.record({
      sandbox: SANDBOX,
      outer,
      connection: 1,
      verdict: "answer",
      subjects: [storePath(i)],
      durationUs: 40,
    });
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
    await press(open.page, `#tree [data-sandbox="${SANDBOX}"]`);
    await open.page.waitForSelector("#timeline .title");
    for (let i = 0; i < 24; i++) {
      load(500);
      // As fast as the page has time for something else.
      await open.page.evaluate("document.title");
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

  test("a static sandbox that has ended keeps its name", async () => {
    const id = "c".repeat(32);
    const detail = { profile: "agent", depth: 1, socket: "/run/nix-broker/agents/socket" };
    site.record({ kind: "sandbox", op: "begin", sandbox: id, detail });
    site.record({ kind: "sandbox", op: "end", sandbox: id, detail: { builds: 0, socket: detail.socket } });
    site.store.flush();
    const { page } = await browser.open(site.address);
    await page.waitForSelector(`#tree [data-sandbox="${id}"][data-state=ended]:has(b:text("agents/socket"))`);
    await page.close();
  });

  test("a named jail shows what it uses of its quota, and its timeline", async () => {
    const id = `ci.${"d".repeat(32)}`;
    const socket = "/run/nix-broker/shared/jails/ci/socket";
    const limits = { concurrentBuilds: 4, builds: null, bytesAdded: 1024 ** 3 };
    const facts = { socket, limits, jail: "ci", bytesAdded: 2048, endsAt: "2030-01-01T00:00:00.000Z" };
    site.sandboxes = [summary(id, facts)];
    site.record({ kind: "sandbox", op: "begin", sandbox: id, detail: { depth: 1, socket } });
    site.store.flush();
    const { page } = await browser.open(site.address);
    const usage = "2.0 KiB of 1.0 GiB added, 0 of 4 builds running, ends 2030-01-01T00:00:00.000Z";
    await page.waitForSelector(`#tree [data-sandbox="${id}"][title*="${usage}"]:has(b:text("ci/socket"))`);
    await page.click(`#tree [data-sandbox="${id}"]`);
    await page.waitForSelector(`#timeline .title:has-text("${id}")`);
    await page.close();
  });

  test("a request of which some builds failed is shown as failed, with why each did", async () => {
    const [bad, worse, good] = ["bad", "worse", "good"].map(
      (name) => `/nix/store/${"1".repeat(32)}-${name}.drv`,
    ) as [string, string, string];
    const asked = { op: "BuildPathsWithResults", sandbox: SANDBOX, outer } as const;
    site.record({ ...asked, kind: "intent", subjects: [bad, worse, good].map((path) => `${path}!out`) });
    site.store.flush();
    const intent = site.store.head.seq;
    site.record({
      kind: "build",
      op: "Build",
      sandbox: SANDBOX,
      subjects: [good],
      detail: { derivation: good, request: intent },
    });
    site.record({
      ...asked,
      verdict: "forward",
      subjects: [bad, worse, good].map((path) => `${path}!out`),
      intent,
      detail: {
        failures: [
          { path: `${bad}!out`, reason: "build of 'bad' failed", upstreamError: "exit code 7" },
          { path: `${worse}!out`, reason: "build of 'worse' failed" },
        ],
      },
    });
    site.record({ ...asked, verdict: "forward", subjects: [`${good}!out`], detail: { failures: [] } });
    site.store.flush();
    const open = await browser.open(site.address);
    const { page } = open;
    await page.waitForSelector(".build[data-state=failed]:has(span:text('bad'))");
    await page.waitForSelector(".build[data-state=failed]:has(span:text('worse'))");
    await page.waitForSelector(".build[data-state=done]:has(span:text('good'))");
    await page.keyboard.press("r");
    await page.waitForSelector("#requests .row");
    const verdicts = await page.locator("#requests .row[data-verdict=forward] .verdict").allTextContents();
    expect(new Set(verdicts)).toEqual(new Set(["failed", "forward"]));
    await page.fill("#search", "failed");
    await requestCount(open, "1");
    expect(await page.textContent("#requests .row .why")).toContain("exit code 7");
    await press(page, "#requests .row");
    await page.waitForSelector("#details[open] h2[data-failed]");
    expect(await page.locator("#details .failure").allTextContents()).toEqual([
      "bad.drv!out build of 'bad' failedexit code 7",
      "worse.drv!out build of 'worse' failed",
    ]);
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
      await press(page, `[role=tab][data-view=${view}]`);
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

describe("while much happens", () => {
  let timer: NodeJS.Timeout | undefined;
  let begun = 0;
  /** Ten times a second records; less often a sandbox, which begins above all others while one below ends. */
  function bustle(): void {
    let ticks = 0;
    timer = setInterval(() => {
      load(20);
      // Often enough for every click that is held, and not so often that none can be aimed at.
      if (ticks++ % 4 > 0) return;
      const id = String(++begun).padStart(32, "b");
      site.sandboxes = [...site.sandboxes.slice(0, 1), ...site.sandboxes.slice(1).slice(-5), summary(id)];
      site.record({ kind: "sandbox", op: "begin", sandbox: id, detail: { profile: "build" } });
      site.store.flush();
    }, 100);
  }
  afterEach(() => clearInterval(timer));

  const focused = "document.activeElement.dataset.sandbox ?? document.activeElement.id";

  test("a click counts however long it is held: a sandbox, a record, a mark, a tab", async () => {
    load(30);
    const { page, errors } = await browser.open(site.address);
    await page.waitForSelector(`#tree [data-sandbox="${SANDBOX}"]`);
    bustle();
    for (const holdMs of [0, 300, 600]) {
      await press(page, `#tree [data-sandbox="${SANDBOX}"]`, holdMs);
      await page.waitForSelector(`#timeline .title:has-text("${SANDBOX}")`);
      await page.waitForSelector(`#tree [data-sandbox="${SANDBOX}"].chosen`);

      await press(page, "#timeline .mark", holdMs);
      await page.waitForSelector("#details[open]");
      await press(page, "#details button[type=submit]", holdMs);
      await page.waitForSelector("#details:not([open])", { state: "attached" });

      await press(page, "[role=tab][data-view=requests]", holdMs);
      await page.waitForSelector("#requests .row");
      await press(page, "#requests .space", holdMs);
      await page.waitForSelector("#details[open]");
      await page.keyboard.press("Escape");
      await page.waitForSelector("#details:not([open])", { state: "attached" });
      await press(page, "[role=tab][data-view=denials]", holdMs);
      await page.waitForSelector("#denials:not([hidden])");
    }
    expect(errors).toEqual([]);
    await page.close();
  });

  test("what is held stays where it is, and what came meanwhile is shown when it is let go", async () => {
    load(30);
    const open = await browser.open(site.address);
    const { page } = open;
    await page.keyboard.press("r");
    await requestCount(open, "30");
    const top = `document.querySelector("#requests [data-seq='30']").getBoundingClientRect().top`;
    const before = await page.evaluate(top);
    await page.hover("#requests .row >> nth=3");
    await page.mouse.down();
    load(5);
    await page.waitForTimeout(1000);
    expect(await page.evaluate(top)).toBe(before);
    await page.mouse.up();
    await requestCount(open, "35");
    expect(await page.textContent("#details")).toContain(storePath(26));
    await page.close();
  });

  test("a dialog that is closed stays closed, also when the page is drawn before it is told of that", async () => {
    load(30);
    const { page } = await browser.open(site.address);
    await page.keyboard.press("r");
    await page.waitForSelector("#requests .row");
    await press(page, "#requests .row");
    await page.waitForSelector("#details[open]");
    const open = await page.evaluate(`(() => {
      const dialog = document.querySelector("#details");
      dialog.close();
      document.querySelector("[role=tab][data-view=requests]").click();
      return dialog.open;
    })()`);
    expect(open).toBe(false);
    await page.close();
  });

  test.each([
    ["moves elements without losing focus", ""],
    ["has to remove them first", "delete Element.prototype.moveBefore"],
  ])(
    "the focus stays, on a sandbox that ends and moves down too, in a browser that %s",
    async (_, script) => {
      load(30);
      const { page } = await browser.open("about:blank");
      await page.addInitScript(script);
      await page.goto(site.address);
      await page.waitForSelector(`#tree [data-sandbox="${SANDBOX}"]`);
      for (const selector of [`#tree [data-sandbox="${SANDBOX}"]`, "#tree", "#search", "#theme"]) {
        await page.focus(selector);
        const before = await page.evaluate(focused);
        const from = begun;
        bustle();
        await page.waitForSelector(`#tree [data-sandbox="${String(from + 5).padStart(32, "b")}"]`);
        clearInterval(timer);
        expect(await page.evaluate(focused)).toBe(before);
      }
      await page.focus(`#tree [data-sandbox="${SANDBOX}"]`);
      site.sandboxes = site.sandboxes.slice(1);
      await page.waitForSelector(`#tree [data-sandbox="${SANDBOX}"][data-state=ended]`);
      expect(await page.evaluate(focused)).toBe(SANDBOX);
      // It can be pressed by key.
      await page.keyboard.press("Enter");
      await page.waitForSelector(`#timeline .title:has-text("${SANDBOX}")`);
      await page.close();
    },
  );
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
