/** Headless Chromium, Debian's. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { mustRun } from "../../lab/command.ts";

const CHROMIUM = "/usr/bin/chromium";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export interface Browser {
  readonly context: BrowserContext;
  /** A page of a size; phones are 390 wide. Fails the test that asks `errors` if it logged any. */
  open(address: string, options?: { width?: number; height?: number; dark?: boolean }): Promise<OpenPage>;
  close(): Promise<void>;
}

export interface OpenPage {
  readonly page: Page;
  /** What it wrote to the console as errors, what was thrown in it, and requests to other hosts. */
  readonly errors: string[];
}

/** Clicks as people do, who hold a button for a while: whatever was drawn meanwhile, what was pressed is what is clicked. */
export async function press(page: Page, selector: string, holdMs = 300): Promise<void> {
  for (;;) {
    await page.hover(selector);
    await page.mouse.down();
    if (await page.evaluate(`document.querySelector(${JSON.stringify(selector)}).matches(":active")`)) break;
    // It moved before it was pressed: aim again, without clicking what is there now.
    await page.mouse.move(0, 0);
    await page.mouse.up();
  }
  await page.waitForTimeout(holdMs);
  await page.mouse.up();
}

/** @throws when there is no Chromium and it cannot be installed */
export async function startBrowser(): Promise<Browser> {
  if (!existsSync(CHROMIUM)) {
    await mustRun(["apt-get", "update"], { timeoutMs: 300_000 });
    await mustRun(
      ["apt-get", "install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"],
      {
        timeoutMs: 600_000,
      },
    );
  }
  const profile = mkdtempSync(join(tmpdir(), "nix-broker-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: CHROMIUM,
    headless: true,
    args: FLAGS,
  });
  return {
    context,
    async open(address, { width = 1360, height = 860, dark = false } = {}) {
      const page = await context.newPage();
      // Whatever is waited for comes, on a loaded machine later.
      page.setDefaultTimeout(180_000);
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme: dark ? "dark" : "light", reducedMotion: "reduce" });
      const errors: string[] = [];
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(message.text());
      });
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("request", (request) => {
        const { host } = new URL(request.url());
        if (host !== new URL(address).host) errors.push(`asked ${host}`);
      });
      await page.goto(address);
      return { page, errors };
    },
    async close() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}
