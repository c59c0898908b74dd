/** The program that fetches, as the service starts it, against servers and archives that mean harm. */
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Header, type HeaderData } from "tar";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { until } from "../../lab/parts.ts";
import { type FetchJob, type FetchReply, LONGEST_LINE, parseReply } from "../../src/contract/fetch-job.ts";
import type { Fetcher } from "../../src/sandbox/fetchers.ts";
import { FetcherStarter } from "../../src/service/fetchers.ts";
import { redirectTo, startServer, type TestServer } from "./server.ts";

const MiB = 1024 * 1024;
let server: TestServer;
const fetchers = new FetcherStarter({ privateHosts: [], socket: undefined });

/** Fetchers of others make their folders in the machine's. */
const temporary = mkdtempSync(join(tmpdir(), "nix-broker-fetcher-test-"));

beforeAll(async () => {
  vi.stubEnv("TMPDIR", temporary);
  server = await startServer();
});
afterAll(async () => {
  vi.unstubAllEnvs();
  rmSync(temporary, { recursive: true });
  await server?.stop();
});

function job(url: string, change: Partial<FetchJob> = {}): FetchJob {
  return {
    urls: [url],
    patterns: [`${server.url}/*`],
    privateHosts: ["127.0.0.1"],
    hash: { algorithm: "sha256", digest: "0".repeat(64) },
    hashed: "nar",
    shapes: ["stripped", "whole"],
    sent: "nar",
    bytes: MiB,
    patience: 600,
    ...change,
  };
}

function start(asked: FetchJob, owner: object = fetchers, unwanted = new AbortController().signal) {
  return fetchers.start(asked, owner, unwanted);
}

async function ask(asked: FetchJob): Promise<FetchReply> {
  const fetcher = await start(asked);
  try {
    return await replyOf(fetcher);
  } finally {
    fetcher.end();
  }
}

async function replyOf({ transport }: Fetcher): Promise<FetchReply> {
  for (;;) {
    while (!transport.available.includes(0x0a))
      if (!(await transport.fill(transport.available.length + 1))) throw new Error("the fetcher broke off");
    const end = transport.available.indexOf(0x0a);
    const said = parseReply(transport.available.toString("utf8", 0, end));
    if (!("progress" in said)) return said;
    transport.consume(end + 1);
  }
}

async function reasonFor(asked: FetchJob): Promise<string> {
  const reply = await ask(asked);
  return reply.ok ? "" : reply.attempts.map(({ reason }) => reason).join("; ");
}

function entry(header: HeaderData, contents = ""): Buffer {
  const block = Buffer.alloc(512);
  new Header({ mode: 0o644, size: contents.length, mtime: new Date(1000), ...header }).encode(block);
  return Buffer.concat([block, Buffer.from(contents), Buffer.alloc((512 - (contents.length % 512)) % 512)]);
}
function tar(...entries: Buffer[]): Buffer {
  return Buffer.concat([...entries, Buffer.alloc(1024)]);
}

describe("servers", () => {
  test.each<[string, () => string, RegExp, Partial<FetchJob>?]>([
    ["one that redirects in a circle", () => "/round", /redirected again and again/],
    ["one that stays silent", () => "/silent", /no answer came within 1 seconds/, { patience: 1 }],
    ["one whose headers drip", () => "/headers", /no answer came within 1 seconds/, { patience: 1 }],
    [
      "one that announces answers without end",
      () => "/early",
      /no answer came within 1 seconds/,
      { patience: 1 },
    ],
    ["one that answers in another protocol", () => "/switch", /the server answered 101 Switching Protocols/],
    ["one with headers of a megabyte", () => "/much", /Header overflow/],
    ["one that redirects to a long URL", () => "/far", /it has a URL of more than 8192 characters/],
    [
      "one that drips",
      () => "/drip",
      /the transfer broke off: it sent fewer than 1024 bytes a second for 1 seconds/,
      { patience: 1 },
    ],
    ["one that breaks off", () => "/short", /the transfer broke off/],
    [
      "one that sends more than may come",
      () => "/long",
      /it holds more than 1048576 bytes \(limits\.body_bytes\)/,
    ],
    [
      "one that redirects to this machine",
      () => "/home",
      /127\.0\.0\.2 has the address 127\.0\.0\.2, which is this machine's/,
      { patterns: ["http://*:*/*"] },
    ],
    [
      "one on this machine",
      () => "/file",
      /127\.0\.0\.1 has the address .*fetch\.private_hosts/,
      { privateHosts: [] },
    ],
    [
      "one that redirects to another scheme",
      () => "/ftp",
      /redirected to 'ftp:\/\/example\.org\/', which no pattern/,
    ],
    ["one that redirects to nonsense", () => "/nonsense", /'http:\/\/' is not a URL/],
  ])("%s", async (_, path, words, change) => {
    server.serve("/round", redirectTo("/round"));
    server.serve("/silent", () => undefined);
    server.serve("/drip", (_request, response) => {
      const drops = setInterval(() => response.write("."), 50);
      response.on("close", () => clearInterval(drops));
    });
    const every = (response: ServerResponse, text: string): void => {
      const drops = setInterval(() => response.socket?.write(text), 50);
      response.socket?.on("close", () => clearInterval(drops));
    };
    server.serve("/headers", (_request, response) => {
      response.socket?.write("HTTP/1.1 200 OK\r\n");
      every(response, "x: y\r\n");
    });
    server.serve("/early", (_request, response) => every(response, "HTTP/1.1 103 Early Hints\r\n\r\n"));
    server.serve("/switch", (_request, response) => {
      response.socket?.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n",
      );
    });
    server.serve("/much", (_request, response) => {
      response.socket?.end(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(MiB)}\r\n\r\n`);
    });
    server.serve("/far", redirectTo(`/file?${"x".repeat(9000)}`));
    server.serve("/short", (_request, response) => {
      response.writeHead(200, { "content-length": "10" });
      response.write("abc", () => response.destroy());
    });
    server.serve("/long", Buffer.alloc(2 * MiB));
    server.serve("/home", redirectTo(server.url.replace("127.0.0.1", "127.0.0.2")));
    server.serve("/ftp", redirectTo("ftp://example.org/"));
    server.serve("/nonsense", redirectTo("http://"));
    server.serve("/file", "contents");
    expect(await reasonFor(job(`${server.url}${path()}`, change))).toMatch(words);
  });

  test("a URL is asked for as the pattern was matched: dots, users and fragments lead nowhere", async () => {
    const patterns = [`${server.url}/ours/*`];
    for (const url of [
      `${server.url}/ours/../theirs`,
      `${server.url}/ours/%2e%2e/theirs`,
      `${server.url}/theirs#/ours/`,
    ])
      expect(await reasonFor(job(url, { patterns }))).toMatch(/no pattern of the profile matches/);
    const withUser = server.url.replace("http://", "http://me@");
    expect(await reasonFor(job(`${withUser}/ours/x`, { patterns: ["http://*:*/*"] }))).toMatch(/no pattern/);
  });

  test("of several URLs the first that gives the right contents is taken", async () => {
    server.serve("/wrong", "other");
    server.serve("/right", "contents");
    const reply = await ask(
      job("", {
        urls: [`${server.url}/nowhere`, `${server.url}/wrong`, `${server.url}/right`],
        hashed: "flat",
        sent: "flat",
        hash: { algorithm: "sha256", digest: createHash("sha256").update("contents").digest("hex") },
      }),
    );
    expect(reply).toEqual({
      ok: true,
      // What a server was asked for, it was told.
      asked: ["nowhere", "wrong", "right"].map((path) => `${server.url}/${path}`),
      length: 8,
    });
  });
});

test("G7: redirects to long URLs do not keep the others from the audit", async () => {
  // A quote is two characters in JSON.
  server.serve("/chain", redirectTo(`/chain?${'"'.repeat(2600)}`));
  server.serve(`/chain?${"%22".repeat(2600)}`, redirectTo("/chain"));
  const urls = Array.from({ length: 64 }, () => `${server.url}/chain`);
  const reply = await ask(job("", { urls }));
  expect(reply.asked.length).toBeGreaterThan(64);
  expect(JSON.stringify(reply).length).toBeLessThan(LONGEST_LINE);
  expect(reply).toMatchObject({ ok: false });
  expect(reply.ok || reply.attempts.at(-1)?.reason).toBe(
    "there are too many long URLs, or redirects to such",
  );
});

describe("archives", () => {
  test.each<[string, () => Buffer, RegExp]>([
    [
      "that lead out of themselves",
      () => tar(entry({ path: "a/../../x", type: "File" }, "x")),
      /leads out of it/,
    ],
    [
      "with something below a link",
      () =>
        tar(
          entry({ path: "l", type: "SymbolicLink", linkpath: "/etc" }),
          entry({ path: "l/passwd", type: "File" }, "x"),
        ),
      /something below 'l', which is not a folder/,
    ],
    [
      "with a device",
      () => tar(entry({ path: "d", type: "CharacterDevice" })),
      /neither a file nor a folder nor a link/,
    ],
    [
      "with a hard link to nowhere",
      () => tar(entry({ path: "h", type: "Link", linkpath: "../../etc/passwd" })),
      /leads out of it/,
    ],
    ["that are cut off", () => entry({ path: "f", type: "File", size: 4096 }, "x"), /it is damaged/],
    [
      "that unpack to more than may come",
      () => gzipSync(tar(entry({ path: "f", type: "File" }, "\0".repeat(4 * MiB)))),
      /it holds more than \d+ bytes|damaged: max decompression ratio/,
    ],
    [
      "with a large file, linked again and again",
      () =>
        gzipSync(
          tar(
            entry({ path: "f", type: "File" }, "x".repeat(MiB / 2)),
            ...["a", "b", "c", "d"].map((path) => entry({ path, type: "Link", linkpath: "f" })),
          ),
        ),
      /it holds more than \d+ bytes/,
    ],
    [
      "with the same folder again and again",
      () => gzipSync(tar(...Array.from({ length: 5000 }, () => entry({ path: "d", type: "Directory" })))),
      /it holds more than \d+ bytes/,
    ],
    [
      "that go on after their end",
      () => gzipSync(Buffer.concat([tar(), Buffer.alloc(4 * MiB)])),
      /it holds more/,
    ],
    [
      "with a name too long for a file system",
      () =>
        tar(
          entry({ path: "long", type: "NextFileHasLongPath" }, "n".repeat(256)),
          entry({ path: "n", type: "Directory" }),
        ),
      /a name of more than 255 bytes/,
    ],
    [
      "with a link longer than a file system has",
      () =>
        tar(
          entry({ path: "long", type: "NextFileHasLongLinkpath" }, "n".repeat(4096)),
          entry({ path: "l", type: "SymbolicLink", linkpath: "n" }),
        ),
      /a link with a target of 4096 bytes/,
    ],
    ["that are none", () => Buffer.from("plain text"), /it is not an archive that can be unpacked here/],
    ["in bzip2", () => Buffer.from("BZh91AY&SY"), /compressed with bzip2, which is not unpacked here/],
    ["in xz, damaged", () => Buffer.from("\xfd7zXZ\0 nonsense", "latin1"), /it is damaged/],
    ["in zip, damaged", () => Buffer.from("PK\x03\x04 nonsense", "latin1"), /it is damaged/],
    [
      "with too many folders in each other",
      () =>
        tar(
          entry({ path: "long", type: "NextFileHasLongPath" }, "d/".repeat(300)),
          entry({ path: "d", type: "Directory" }),
        ),
      /more than 256 deep/,
    ],
    [
      "with two folders, where one is expected",
      () => tar(entry({ path: "a", type: "Directory" }), entry({ path: "b", type: "Directory" })),
      /does not hold one folder alone|do not have the hash/,
    ],
  ])("%s", async (what, archive, words) => {
    const path = `/archive/${what.replaceAll(/\W/g, "-")}`;
    server.serve(path, archive());
    expect(await reasonFor(job(`${server.url}${path}`))).toMatch(words);
  });
});

describe("the program", () => {
  test("ends when its service does no longer want it, and leaves no folder", async () => {
    const before = new Set(temporaryFolders());
    server.serve("/never", () => undefined);
    const fetcher = await start(job(`${server.url}/never`));
    await until(() => server.asked.some(({ path }) => path === "/never"));
    const [made] = temporaryFolders().filter((folder) => !before.has(folder));
    expect(made).toBeDefined();
    fetcher.end();
    expect(existsSync(`${tmpdir()}/${made}`)).toBe(false);
    await expect(replyOf(fetcher)).rejects.toThrow();
  });

  test("ends when its service hangs up, whatever the server does", async () => {
    let closed = false;
    server.serve("/slow", (_, response) => {
      response.write("a little");
      response.on("close", () => {
        closed = true;
      });
    });
    const before = new Set(temporaryFolders());
    const fetcher = await start(job(`${server.url}/slow`));
    try {
      await until(() => server.asked.some(({ path }) => path === "/slow"));
      const isItsFolder = (name: string) => !before.has(name);
      expect(temporaryFolders().filter(isItsFolder)).toHaveLength(1);
      fetcher.transport.destroy();
      await until(() => closed);
      // A service that was killed does not remove it.
      await until(() => !temporaryFolders().some(isItsFolder));
    } finally {
      fetcher.end();
    }
  });

  test("says how far it is, before it replies", async () => {
    server.serve("/little", (_, response) => void response.write("a little"));
    const { transport, end } = await start(job(`${server.url}/little`));
    try {
      while (!transport.available.includes(0x0a)) expect(await transport.fill()).toBe(true);
      expect(transport.available.toString()).toBe('{"progress":8}\n');
    } finally {
      end();
    }
  });

  test("keeps nothing of what was wrong while it tries the next URL", async () => {
    server.serve("/bomb", gzipSync(tar(entry({ path: "f", type: "File" }, "x".repeat(4 * MiB)))));
    server.serve("/other", gzipSync(tar(entry({ path: "f", type: "File" }, "x"))));
    server.serve("/last", () => undefined);
    const urls = ["/bomb", "/other", "/last"].map((path) => `${server.url}${path}`);
    const fetcher = await start(job("", { urls }));
    try {
      await until(() => server.asked.some(({ path }) => path === "/last"));
      expect(spooled()).toEqual([]);
    } finally {
      fetcher.end();
    }
  });

  const never = () => job(`${server.url}/never`);

  test("there are eight at once, and owners take turns", async () => {
    const [first, second, modest] = [{}, {}, {}];
    const order: string[] = [];
    const running = await Promise.all(
      [first, second].flatMap((owner) => [1, 2, 3, 4].map(() => start(never(), owner))),
    );
    const waiting = ["first", "first", "modest"].map(async (name) => {
      const fetcher = await start(never(), name === "first" ? first : modest);
      order.push(name);
      fetcher.end();
    });
    for (const fetcher of running) fetcher.end();
    await Promise.all(waiting);
    expect(order).toContain("modest");
    expect(order.indexOf("modest")).toBeLessThan(order.lastIndexOf("first"));
  });

  test("one owner does not get all places", async () => {
    const greedy = {};
    const unwanted = new AbortController();
    const running = await Promise.all([1, 2, 3, 4].map(() => start(never(), greedy)));
    const fifth = start(never(), greedy, unwanted.signal);
    const other = await start(never(), {});
    unwanted.abort(new Error("not any more"));
    await expect(fifth).rejects.toThrow("not any more");
    for (const fetcher of [...running, other]) fetcher.end();
  });

  test("what is not wanted any more is not started later", async () => {
    const owner = {};
    const running = await Promise.all([1, 2, 3, 4].map(() => start(never(), owner)));
    const unwanted = new AbortController();
    const waiting = start(never(), owner, unwanted.signal);
    const next = start(never(), owner);
    unwanted.abort(new Error("the client left"));
    await expect(waiting).rejects.toThrow("the client left");
    await expect(start(never(), owner, unwanted.signal)).rejects.toThrow("the client left");
    running.shift()?.end();
    (await next).end();
    for (const fetcher of running) fetcher.end();
  });

  test("one that cannot take its job leaves no folder and no place taken", async () => {
    const before = temporaryFolders();
    const tooLong = { ...never(), patterns: ["x".repeat(4 * MiB)] };
    const owner = {};
    for (let i = 0; i < 5; i++) {
      const started = await start(tooLong, owner).catch(() => undefined);
      await (started ? replyOf(started).catch(() => undefined) : undefined);
      started?.end();
    }
    expect(temporaryFolders()).toEqual(before);
  });
});

/** Files that fetchers of this process hold. */
function spooled(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/status`, "utf8").includes(`\nPPid:\t${process.pid}\n`)) return [];
        return readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
      } catch {
        // It has ended.
        return [];
      }
    })
    .filter((file) => file.includes("nix-broker-fetch-"));
}

function temporaryFolders(): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith("nix-broker-fetch-"));
}
