import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { LinkerClient, LinkerError } from "../../src/service/builds/linker-client.ts";
import { BrokeredLab } from "./brokered-lab.ts";

const newest = lab.versions.at(-1)!;

describe("a hostile service at the linker's socket", () => {
  let brokered: BrokeredLab;
  let socket: string;

  beforeAll(async () => {
    brokered = await BrokeredLab.start(newest);
    await brokered.startLinker();
    socket = brokered.runtime("linker.sock");
  });
  afterAll(() => brokered?.stop());

  const waiting = "until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.1; done; echo > $out";
  /** Lets a build end that waits. */
  const go = (id: string) => writeFileSync(brokered.runtime(`sandboxes/${id}/socket.d/go`), "");

  /** Sends bytes, and returns all that comes back until the linker closes, or until `replies` lines are there. */
  async function talk(bytes: string | Buffer, replies = Number.POSITIVE_INFINITY): Promise<unknown[]> {
    const connection = connect(socket);
    let text = "";
    connection.on("error", () => undefined);
    const done = new Promise<void>((resolve) => {
      connection.on("close", () => resolve());
      connection.on("data", (chunk) => {
        text += chunk.toString();
        if (text.split("\n").length > replies) resolve();
      });
    });
    connection.write(bytes);
    await done;
    connection.destroy();
    return text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as unknown);
  }

  test("the socket is root's and the service's, and nobody else's", async () => {
    const { uid, mode } = statSync(socket);
    expect({ uid, mode: mode & 0o777 }).toEqual({ uid: 0, mode: 0o660 });
    const script = `import("node:net").then(({ connect }) => connect("/run/nix-broker/linker.sock").on("connect", () => { console.log("connected"); process.exit(); }).on("error", (e) => console.log(e.code)))`;
    const as = async (user: string) =>
      (await brokered.daemon.run([BrokeredLab.node, "-e", script], { user })).stdout.trim();
    expect(await as("nix-broker")).toBe("connected");
    expect(await as("alice")).toBe("EACCES");
    expect(await as("nobody")).toBe("EACCES");
  });

  test("the service can make, rename and remove nothing that root relies on", async () => {
    const building = brokered.daemon.tryBuild(
      sandboxScript(waiting, { name: "guarded", features: ["nix-broker"] }),
    );
    brokered.startStandIn();
    const id = await brokered.sandboxNamed("guarded");
    const attempts = [
      "touch /run/nix-broker/x",
      "touch /run/nix-broker/sandboxes/x",
      "mkdir /run/nix-broker/derivations/x",
      `echo x > /run/nix-broker/sandboxes/${id}/sandbox.json`,
      `touch /run/nix-broker/sandboxes/${id}/ended`,
      `rm -f /run/nix-broker/sandboxes/${id}/linked`,
      `mv /run/nix-broker/sandboxes/${id}/socket.d /run/nix-broker/sandboxes/${id}/other`,
      `touch /run/nix-broker/sandboxes/${id}/etc/nix.conf`,
      `echo x > /nix/var/nix/gcroots/nix-broker/${id}.json`,
      `rm -f /nix/var/nix/gcroots/nix-broker/${id}.json`,
      "touch /nix/var/nix/gcroots/nix-broker/x",
      `rmdir /nix/var/nix/gcroots/nix-broker/${id}`,
    ];
    for (const attempt of attempts) {
      const { code } = await brokered.daemon.run(["sh", "-c", attempt], { user: "nix-broker" });
      expect(code, attempt).not.toBe(0);
    }
    for (const allowed of [
      "ls /run/nix-broker/sandboxes",
      `cat /run/nix-broker/sandboxes/${id}/sandbox.json /run/nix-broker/sandboxes/${id}/linked`,
      `cat /nix/var/nix/gcroots/nix-broker/${id}.json`,
      `touch /run/nix-broker/sandboxes/${id}/socket.d/x`,
      `ln -s /nix/store/x /nix/var/nix/gcroots/nix-broker/${id}/x`,
    ]) {
      const { code, stderr } = await brokered.daemon.run(["sh", "-c", allowed], { user: "nix-broker" });
      expect(code, `${allowed}: ${stderr}`).toBe(0);
    }
    go(id);
    await building;
  });

  test.each([
    ["not JSON", "hello\n"],
    ["an empty line", "\n"],
    ["binary", Buffer.from([0xff, 0x00, 0x80, 0x0a])],
    ["a line without end", "x".repeat(100_000)],
    ["deep nesting", `${"[".repeat(8000)}\n`],
    ["a wrong op", '{"id":1,"op":"shutdown"}\n'],
  ])("%s is answered, and the connection closed", async (_, bytes) => {
    const replies = await talk(bytes);
    expect(replies).toEqual([expect.objectContaining({ ok: false, code: "malformed" })]);
  });

  test("sandboxes and paths that are none", async () => {
    const sandbox = "a".repeat(32);
    const path = `/nix/store/${"0".repeat(32)}-x`;
    const replies = await talk(
      [
        { id: 1, op: "link", sandbox, path },
        { id: 2, op: "link", sandbox, path: "/etc/shadow" },
        { id: 3, op: "release", sandbox },
        { id: 4, op: "identify", pid: 1, uid: 0 },
      ]
        .map((request) => `${JSON.stringify(request)}\n`)
        .join(""),
      4,
    );
    expect(replies).toEqual(
      expect.arrayContaining(
        ["unknown-sandbox", "invalid-path", "unknown-sandbox", "not-a-build"].map((code, index) =>
          expect.objectContaining({ id: index + 1, ok: false, code }),
        ),
      ),
    );
  });

  test("many connections, half of them silent, and one that never reads: others are still served", async () => {
    const silent = Array.from({ length: 8 }, () => connect(socket).on("error", () => undefined));
    const deaf = connect(socket).on("error", () => undefined);
    deaf.pause();
    deaf.write('{"id":1,"op":"identify","pid":1,"uid":0}\n'.repeat(20_000));
    expect(await brokered.linker.status()).toMatchObject({ version: 1, upstream: "ok" });
    for (const connection of [...silent, deaf]) connection.destroy();
  });

  test("a path that is not valid is not linked; one that is not there any more neither", async () => {
    brokered.startStandIn();
    const building = brokered.daemon.tryBuild(
      sandboxScript(waiting, { name: "invalid", features: ["nix-broker"] }),
    );
    const id = await brokered.sandboxNamed("invalid");
    const left = `${"1".repeat(32)}-left-over`;
    writeFileSync(brokered.daemon.hostPath(`/nix/store/${left}`), "left by a failed build", { mode: 0o444 });
    await expect(brokered.linker.link(id, `/nix/store/${left}`)).rejects.toMatchObject({
      code: "invalid-path",
    });
    await expect(brokered.linker.release(id)).rejects.toMatchObject({ code: "not-ended" });
    go(id);
    await building;
  });
});

describe("LinkerClient", () => {
  let folder: string;
  let server: Server | undefined;
  const make = (onLine: (line: { id: number }, reply: (value: unknown) => void, end: () => void) => void) => {
    server = createServer((connection) => {
      let rest = "";
      connection.on("error", () => undefined);
      connection.on("data", (chunk) => {
        const lines = (rest + chunk.toString()).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines)
          onLine(
            JSON.parse(line) as { id: number },
            (value) => connection.write(`${JSON.stringify(value)}\n`),
            () => connection.destroy(),
          );
      });
    });
    server.listen(join(folder, "linker.sock"));
    return once(server, "listening");
  };
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "linker-client-"));
    mkdirSync(folder, { recursive: true });
  });
  afterEach(() => {
    server?.close();
    server = undefined;
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("a linker that is not there is an error that says what to do", async () => {
    const client = new LinkerClient(join(folder, "none.sock"), { patience: 0 });
    await expect(client.link("a", "b")).rejects.toMatchObject({
      code: "unreachable",
      message: expect.stringContaining("nix-broker-linker"),
    });
    client.close();
    await expect(client.status()).rejects.toBeInstanceOf(LinkerError);
  });

  test("what was not answered when the linker went away is asked again", async () => {
    let first = true;
    await make((line, reply, end) => {
      if (first) {
        first = false;
        end();
      } else reply({ id: line.id, ok: true });
    });
    const client = new LinkerClient(join(folder, "linker.sock"));
    await Promise.all([client.link("a", "b"), client.link("a", "c")]);
    client.close();
  });

  test("a linker that takes a request and does not answer is an error, and its late answer does no harm", async () => {
    const late: (() => void)[] = [];
    await make((line, reply) => {
      if (line.id > 1) reply({ id: line.id, ok: true });
      else late.push(() => reply({ id: line.id, ok: true }));
    });
    const client = new LinkerClient(join(folder, "linker.sock"), { answer: 100 });
    await expect(client.link("a", "b")).rejects.toMatchObject({
      code: "unreachable",
      message: expect.stringContaining("has not answered for 0.1 s"),
    });
    for (const answer of late) answer();
    await client.link("a", "c");
    client.close();
  });

  test("replies in another order find their requests; errors keep their code", async () => {
    const waiting: (() => void)[] = [];
    await make((line, reply) => {
      waiting.push(() =>
        reply(
          line.id === 1 ? { id: 1, ok: true } : { id: line.id, ok: false, code: "gone", error: "it is gone" },
        ),
      );
      if (waiting.length === 2) for (const answer of waiting.reverse()) answer();
    });
    const client = new LinkerClient(join(folder, "linker.sock"));
    const results = await Promise.allSettled([client.link("a", "b"), client.link("a", "c")]);
    expect(results).toMatchObject([
      { status: "fulfilled" },
      { status: "rejected", reason: { code: "gone" } },
    ]);
    client.close();
  });

  test("the number of open requests is bounded, and closing rejects them", async () => {
    await make(() => undefined);
    const client = new LinkerClient(join(folder, "linker.sock"), { maxOpen: 1 });
    const open = client.link("a", "b");
    await expect(client.link("a", "c")).rejects.toMatchObject({ code: "busy" });
    client.close();
    await expect(open).rejects.toMatchObject({ code: "closed" });
  });
});
