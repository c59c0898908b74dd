/** The HTTP listeners: what is let through, and what is not. */
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { type OutgoingHttpHeaders, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import type { Endpoint } from "../../src/config/config.ts";
import { Metrics } from "../../src/service/metrics.ts";
import {
  bearerToken,
  type HttpListener,
  type HttpSite,
  type Route,
  sameToken,
  serveHttp,
} from "../../src/service/web/http.ts";
import { metricsSite } from "../../src/service/web/sites.ts";
import { readOrMakeToken, readToken } from "../../src/service/web/token-file.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-http-"));
afterAll(() => rmSync(folder, { recursive: true }));

const TOKEN = "a-token-of-24-characters";
const problems: Error[] = [];
let listener: HttpListener | undefined;
afterEach(async () => {
  await listener?.close();
  listener = undefined;
  problems.length = 0;
});

const site: HttpSite = {
  routes: new Map<string, Route>([
    ["/secret", { handle: (_request, response) => void response.end("secret") }],
    ["/open", { open: true, handle: (_request, response) => void response.end("open") }],
    [
      "/fault",
      {
        handle: () => {
          throw new Error("details of the inside");
        },
      },
    ],
  ]),
  authorized: (incoming) => sameToken(bearerToken(incoming), TOKEN),
  upgrade: (_request, socket) => {
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
    );
    return undefined;
  },
};

async function open(
  endpoint: Endpoint = { kind: "tcp", host: "127.0.0.1", port: 0 },
  served = site,
): Promise<number> {
  listener = await serveHttp(endpoint, served, (error) => problems.push(error));
  return listener.endpoint.kind === "tcp" ? listener.endpoint.port : 0;
}

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers: OutgoingHttpHeaders;
}

function ask(
  where: { port: number } | { socketPath: string },
  path: string,
  headers: OutgoingHttpHeaders = {},
  method = "GET",
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", ...where, path, headers, method }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
      );
    });
    asked.on("error", reject).end();
  });
}

const bearer = { authorization: `Bearer ${TOKEN}` };

test("the token opens, nothing else does; what is missing is not told apart without it", async () => {
  const port = await open();
  expect(await ask({ port }, "/secret?x=1", bearer)).toMatchObject({ status: 200, text: "secret" });
  expect((await ask({ port }, "/open")).text).toBe("open");
  for (const headers of [
    {},
    { authorization: "Bearer wrong" },
    { authorization: `Basic ${TOKEN}` },
    { authorization: TOKEN },
  ]) {
    expect((await ask({ port }, "/secret", headers)).status).toBe(401);
    expect((await ask({ port }, "/nowhere", headers)).status).toBe(401);
  }
  expect((await ask({ port }, "/nowhere", bearer)).status).toBe(404);
});

test.each(["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1"])(
  "a request under the name %j is refused: it may come by a rebound name",
  async (host) => {
    const port = await open();
    expect((await ask({ port }, "/open", { ...bearer, host })).status).not.toBe(200);
    expect((await ask({ port }, "/secret", { ...bearer, host })).text).not.toContain("secret");
  },
);

test.each(["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:99"])("%s is our name", async (host) => {
  const port = await open();
  expect((await ask({ port }, "/secret", { ...bearer, host })).status).toBe(200);
});

test("pages of other origins get nothing, the own one does", async () => {
  const port = await open();
  const host = `127.0.0.1:${port}`;
  for (const origin of ["https://evil.example", "null", `https://${host}`, "http://127.0.0.1:1"])
    expect((await ask({ port }, "/secret", { ...bearer, origin })).status).toBe(403);
  expect((await ask({ port }, "/secret", { ...bearer, origin: `http://${host}` })).status).toBe(200);
});

test("only GET and HEAD are served", async () => {
  const port = await open();
  for (const method of ["POST", "PUT", "DELETE", "OPTIONS"])
    expect(await ask({ port }, "/open", bearer, method)).toMatchObject({
      status: 405,
      headers: { allow: "GET, HEAD" },
    });
});

test("a fault is told in the log and not to the client", async () => {
  const port = await open();
  const { status, text } = await ask({ port }, "/fault", bearer);
  expect(status).toBe(500);
  expect(text).not.toContain("inside");
  expect(problems.map(({ message }) => message)).toEqual(["details of the inside"]);
});

/** The first line that comes back for a request to upgrade. */
async function upgrade(port: number, headers: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.write(`GET /live HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${headers}\r\n\r\n`);
  const [text] = (await once(socket.setEncoding("utf8"), "data")) as [string];
  socket.destroy();
  return text.split("\r\n")[0]!;
}

test("upgrades are checked as requests are, and cut off at the end", async () => {
  const port = await open();
  const auth = `Authorization: Bearer ${TOKEN}`;
  expect(await upgrade(port, "Host: localhost")).toContain("401");
  expect(await upgrade(port, `Host: evil.example\r\n${auth}`)).toContain("421");
  expect(await upgrade(port, `Host: localhost\r\nOrigin: http://evil.example\r\n${auth}`)).toContain("403");
  expect(await upgrade(port, `Host: localhost\r\n${auth}`)).toContain("101");
  const socket = connect(port, "127.0.0.1");
  socket.write(
    `GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${auth}\r\n\r\n`,
  );
  await once(socket, "data");
  await listener?.close();
  await once(socket.resume(), "close");
});

/** A connection that sends something, and never closes nor, unless asked, reads. */
async function held(port: number, text: string): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  socket.on("error", () => undefined);
  await once(socket, "connect");
  socket.write(text);
  return socket;
}

const UPGRADE = "GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";

test.each([
  ["refused upgrades", `${UPGRADE}\r\n`],
  ["upgrades under a foreign name", `${UPGRADE.replace("localhost", "evil.example")}\r\n`],
  ["refused requests", "GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ["half a header", "GET / HTTP/1.1\r\n"],
  ["nothing", ""],
])(
  "connections that hold on to %s keep nobody out, and nobody with the token is cut off",
  async (_, text) => {
    const port = await open();
    const member = await held(port, `${UPGRADE}Authorization: Bearer ${TOKEN}\r\n\r\n`);
    await once(member, "data");
    const sockets: Socket[] = [];
    for (let i = 0; i < 300; i++) sockets.push(await held(port, text));
    expect((await ask({ port }, "/open")).text).toBe("open");
    expect((await ask({ port }, "/secret", bearer)).text).toBe("secret");
    expect(member.closed).toBe(false);
    for (const socket of [...sockets, member]) socket.destroy();
  },
);

test("a refused upgrade is closed, whether or not its client closes it", async () => {
  const port = await open();
  const socket = await held(port, `${UPGRADE}\r\n`);
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  await once(socket, "end");
  expect(text).toContain("401");
  // What comes after the service has closed its side is answered with a reset.
  const writing = setInterval(() => socket.write("x"), 50);
  await new Promise((resolve) => socket.on("close", resolve));
  clearInterval(writing);
});

test("one answer at a time is made for a connection: requests sent ahead end it", async () => {
  let made = 0;
  const port = await open(undefined, {
    routes: new Map([["/slow", { open: true, handle: () => void made++ }]]),
    authorized: () => false,
  });
  const socket = await held(port, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000));
  await once(socket.resume(), "end");
  expect(made).toBe(1);
  socket.destroy();
});

test("a Unix socket is for its owner and group, replaces a dead one, and goes with the listener", async () => {
  const path = join(folder, "socket");
  await open({ kind: "unix", path });
  expect(statSync(path).mode & 0o777).toBe(0o660);
  expect((await ask({ socketPath: path }, "/secret", bearer)).status).toBe(200);
  await expect(serveHttp({ kind: "unix", path }, site, () => undefined)).rejects.toThrow(
    "Another process listens",
  );
  await listener?.close();
  expect(existsSync(path)).toBe(false);
});

test("a port that is taken is an error that names it", async () => {
  const port = await open();
  await expect(serveHttp({ kind: "tcp", host: "127.0.0.1", port }, site, () => undefined)).rejects.toThrow(
    new RegExp(`^Cannot listen on 127\\.0\\.0\\.1:${port}: .*choose another port\\.$`),
  );
});

test("metrics are scraped with the token, where one is set", async () => {
  const metrics = new Metrics(
    {
      sandboxes: () => new Map([["build", 2]]),
      connections: () => 3,
      pooledUpstreams: () => 4,
      innerBuilds: () => 0,
      linkerRequests: () => 0,
      memory: () => ({ held: 0, size: 1, waiting: 0 }),
      audit: () => ({ healthy: true, pending: 0, lagMs: 0, lost: 0, head: { seq: 1 } }),
    },
    "1.2.3",
  );
  const port = await open({ kind: "tcp", host: "127.0.0.1", port: 0 }, metricsSite(metrics, TOKEN));
  expect((await ask({ port }, "/metrics")).status).toBe(401);
  const { status, text, headers } = await ask({ port }, "/metrics", bearer);
  expect(status).toBe(200);
  expect(headers["content-type"]).toContain("text/plain; version=0.0.4");
  expect(text).toContain('nix_broker_build_info{version="1.2.3"} 1');
  expect(text).toContain("nix_broker_connections 3");
});

test("a token file must hold a good token that others cannot read", () => {
  const path = join(folder, "token");
  expect(() => readToken(path)).toThrow(/^The token file .*token cannot be read: ENOENT/);
  const made = readOrMakeToken(path);
  expect(made).toMatch(/^[\w-]{43}$/);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(readOrMakeToken(path)).toBe(made);
  expect(readFileSync(path, "utf8")).toBe(`${made}\n`);
  chmodSync(path, 0o644);
  expect(() => readToken(path)).toThrow(/can be read by everybody: chmod o-rwx it/);
  chmodSync(path, 0o640);
  expect(readToken(path)).toBe(made);
  for (const text of ["", "short\n", "a token with blanks in it\n"]) {
    writeFileSync(path, text);
    expect(() => readToken(path)).toThrow("must be at least 16 characters without spaces");
  }
  // What is left of one that did not fit on the disk.
  writeFileSync(path, "");
  expect(readOrMakeToken(path)).toMatch(/^[\w-]{43}$/);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});
