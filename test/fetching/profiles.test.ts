/**
 * Profiles with URL patterns, on real daemons: nix-broker fetches what nixpkgs' fetchers would, and runs none of their code.
 */
import { createHash } from "node:crypto";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { tarXz, zip } from "./archives.ts";
import { redirectTo, startServer, type TestServer } from "./server.ts";

const strip = `
  unpackDir="$TMPDIR/unpack"
  mkdir "$unpackDir"
  cd "$unpackDir"

  renamed="$TMPDIR/a.tar"
  mv "$downloadedFile" "$renamed"
  unpackFile "$renamed"

  chmod -R +w "$unpackDir"
  if [ $(ls -A "$unpackDir" | wc -l) != 1 ]; then
    echo "error: zip file must contain a single file or directory."
    echo "hint: Pass stripRoot=false; to fetchzip to assume flat list of files."
    exit 1
  fi
  fn=$(cd "$unpackDir" && ls -A)
  if [ -f "$unpackDir/$fn" ]; then
    mkdir $out
  fi
  mv "$unpackDir/$fn" "$out"

  chmod 755 "$out"
`;
const whole = strip.replace(/ {2}if \[ \$\(ls[\s\S]*"\$out"\n\n/, '  mv "$unpackDir" "$out"\n');
const code = `${strip}  sed -i s/text/other/ $out/README\n`;

/** Its builder fails: nothing but what nix-broker fetches makes the output. */
function fixedOutput(attributes: Readonly<Record<string, string>>): string {
  const all = {
    name: "fetched",
    system: nixSystem,
    builder: "/bin/sh",
    outputHashAlgo: "sha256",
    outputHashMode: "flat",
    ...attributes,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name} = ${nixString(value)};`);
  return `derivation { args = [ "-c" "exit 1" ]; ${lines.join(" ")} }`;
}

function sha256(bytes: Buffer | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

const NO_HASH = "0".repeat(64);

describe.each(lab.versions)("G4: what profiles with URL patterns fetch [daemon %s]", (version) => {
  let daemon: Daemon;
  let server: TestServer;
  let broker: TestBroker;
  let closed: TestBroker;
  /** Of the tree in the archives, as Nix sees it: its one folder, and the folder that is in. */
  let hashes: { stripped: string; whole: string };

  beforeAll(async () => {
    [daemon, server] = await Promise.all([lab.start(version), startServer()]);
    const tar = Buffer.from(
      (await daemon.run(["sh", "-c", "xz -d | base64 -w0"], { input: tarXz })).stdout,
      "base64",
    );
    const unpacked = await daemon.run([
      "sh",
      "-c",
      `set -e; cd $(mktemp -d); mkdir -p thing/bin thing/empty
      printf '#!/bin/sh\\necho hello\\n' > thing/bin/run; chmod 755 thing/bin/run; echo text > thing/README
      ln -s bin/run thing/link; cp thing/README thing/zz-hard
      for folder in thing .; do nix-hash --type sha256 $folder; done`,
    ]);
    expect(unpacked.code, unpacked.stderr).toBe(0);
    const [stripped = "", wholeHash = ""] = unpacked.stdout.split("\n");
    hashes = { stripped, whole: wholeHash };
    const config = `
[fetch]
private_hosts = ["127.0.0.1"]
[profiles.fetching-agent]
extends = "agent"
fixed_outputs = ["${server.url}/ok/*"]
[profiles.fetching-build]
extends = "pure"
fixed_outputs = ["${server.url}/ok/*"]
`;
    [broker, closed] = await Promise.all([
      startBroker(daemon, { profile: "fetching-agent", view: "store", config }),
      startBroker(daemon, { profile: "fetching-build", view: "empty", config }),
    ]);
    server.serve("/ok/file", "contents");
    server.serve("/ok/a.tar.gz", gzipSync(tar));
    server.serve("/ok/a.tar.zst", zstdCompressSync(tar));
    server.serve("/ok/a.tar.xz", tarXz);
    server.serve("/ok/a.zip", zip);
    server.serve("/ok/moved", redirectTo("/ok/file"));
    server.serve("/ok/astray", redirectTo(`${server.url}/elsewhere/file`));
    server.serve("/ok/local", redirectTo("file:///etc/passwd"));
    server.serve("/elsewhere/file", "contents");
  });
  afterAll(async () => {
    await Promise.all([broker?.stop(), closed?.stop()]);
    await Promise.all([daemon?.stop(), server?.stop()]);
  });

  const build = (expression: string, by = broker) =>
    daemon.run(["nix-build", "--no-out-link", "-E", expression], {
      user: "alice",
      env: { NIX_REMOTE: `unix://${by.socket}` },
    });
  const contents = async (path: string) => (await daemon.run(["cat", path.trim()])).stdout;

  test.each(["view store", "closed view"])("a file, and what is built upon it: %s", async (view) => {
    const by = view === "closed view" ? closed : broker;
    const dep = fixedOutput({
      urls: `${server.url}/ok/file`,
      outputHash: sha256("contents"),
      name: `file-${view.length}`,
    });
    const built = await build(
      `derivation { name = "above"; system = ${nixString(nixSystem)}; builder = "/bin/sh"; args = [ "-c" "read x < $dep; echo got $x > $out" ]; dep = ${dep}; }`,
      by,
    );
    expect(built.code, built.stderr).toBe(0);
    expect(built.stderr).toContain(`fetching '${server.url}/ok/file'...`);
    expect(await contents(built.stdout)).toBe("got contents\n");
  });

  test("builtin:fetchurl, which the daemon does not run", async () => {
    const expression = fixedOutput({
      name: "by-builtin",
      builder: "builtin:fetchurl",
      system: "builtin",
      url: `${server.url}/ok/moved`,
      outputHash: sha256("contents"),
    });
    const built = await build(expression);
    expect(built.code, built.stderr).toBe(0);
    expect(await contents(built.stdout)).toBe("contents");
    expect(new Set(server.asked.map(({ agent }) => agent))).toEqual(new Set(["nix-broker"]));
    const [fetched] = (await broker.audit("--kind", "fetch", "--path", built.stdout.trim())).slice(-1);
    expect(fetched?.subjects?.slice(1)).toEqual([
      built.stdout.trim(),
      `${server.url}/ok/moved`,
      `${server.url}/ok/file`,
    ]);
  });

  test("an executable file", async () => {
    const made = await daemon.run([
      "sh",
      "-c",
      "set -e; cd $(mktemp -d); printf contents > x; chmod +x x; nix-hash --type sha256 x",
    ]);
    const built = await build(
      fixedOutput({
        name: "executable",
        url: `${server.url}/ok/file`,
        executable: "1",
        outputHashMode: "recursive",
        outputHash: made.stdout.trim(),
      }),
    );
    expect(built.code, built.stderr).toBe(0);
    expect((await daemon.run(["test", "-x", built.stdout.trim()])).code).toBe(0);
  });

  test.each(["a.tar.gz", "a.tar.zst", "a.tar.xz", "a.zip"])(
    "an archive, as fetchzip unpacks it: %s",
    async (file) => {
      for (const [name, postFetch, outputHash] of [
        ["stripped", strip, hashes.stripped],
        ["whole", whole, hashes.whole],
      ] as const) {
        const built = await build(
          fixedOutput({
            name: `${name}-${file}`,
            url: `${server.url}/ok/${file}`,
            outputHashMode: "recursive",
            outputHash,
            postFetch,
          }),
          closed,
        );
        expect(built.code, built.stderr).toBe(0);
      }
    },
  );

  test("a wrong hash is told in Nix's words, and the one that is told is right", async () => {
    const expression = (outputHash: string) =>
      fixedOutput({
        name: "unpacked-later",
        url: `${server.url}/ok/a.tar.gz`,
        outputHashMode: "recursive",
        outputHash,
        postFetch: strip,
      });
    const refused = await build(expression(NO_HASH));
    expect(refused.code).not.toBe(0);
    const [, got = ""] =
      /hash mismatch in fixed-output derivation[\s\S]*got:\s+sha256-(\S+)/.exec(refused.stderr) ?? [];
    expect(Buffer.from(got, "base64").toString("hex")).toBe(hashes.stripped);
    const built = await build(expression(hashes.stripped));
    expect(built.code, built.stderr).toBe(0);
  });

  test("mirrors, by nixpkgs' list, which need not be built", async () => {
    const list = `derivation { name = "mirrors-list"; system = "x"; builder = "/no"; here = "${server.url}/not-there/ ${server.url}/ok"; }`;
    const built = await build(`let list = ${list}; in derivation {
      name = "mirrored"; system = ${nixString(nixSystem)}; builder = "/bin/sh"; args = [ "-c" "exit 1" ];
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "${sha256("contents")}";
      urls = [ "mirror://here/file" ]; mirrorsFile = list;
    }`);
    expect(built.code, built.stderr).toBe(0);
  });

  test("a client that leaves takes its downloads along", async () => {
    let closed = false;
    server.serve("/ok/endless", (_, response) => {
      response.write("a little");
      response.on("close", () => {
        closed = true;
      });
    });
    const client = daemon.spawn(
      [
        "nix-build",
        "--no-out-link",
        "-E",
        fixedOutput({ url: `${server.url}/ok/endless`, outputHash: NO_HASH }),
      ],
      { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } },
    );
    await until(() => server.asked.some(({ path }) => path === "/ok/endless"));
    client.kill("SIGKILL");
    await until(() => closed);
  });

  test("the audit has every URL that was asked for, those that gave nothing too", async () => {
    const urls = ["/ok/missing?a=message", "/ok/moved"].map((path) => `${server.url}${path}`);
    const built = await build(
      fixedOutput({ name: "second-url", urls: urls.join(" "), outputHash: sha256("contents") }),
    );
    expect(built.code, built.stderr).toBe(0);
    const [fetched] = (await broker.audit("--kind", "fetch", "--path", built.stdout.trim())).slice(-1);
    expect(fetched?.subjects?.slice(2)).toEqual([...urls, `${server.url}/ok/file`]);
  });

  test("a request that waits for a place ends when its time is up", async () => {
    server.serve("/ok/busy", (_, response) => response.write("a little"));
    const never = (name: string) => fixedOutput({ name, url: `${server.url}/ok/busy`, outputHash: NO_HASH });
    const beside = { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } };
    const command = (expression: string, ...options: string[]) => [
      ...["nix-build", "--no-out-link", ...options, "-E"],
      expression,
    ];
    const four = [1, 2, 3, 4].map((n) => never(`busy-${n}`)).join(") (");
    const busy = daemon.spawn(command(`[ (${four}) ]`), beside);
    try {
      await until(() => server.asked.filter(({ path }) => path === "/ok/busy").length === 4);
      const late = await daemon.run(command(never("late-for-a-place"), "--timeout", "1"), beside);
      expect(late.code).not.toBe(0);
      expect(late.stderr).toContain("the build took longer than 1 seconds (the client's --timeout)");
    } finally {
      busy.kill("SIGKILL");
    }
  });

  test("what has been added gives the other downloads of a request no more time", async () => {
    server.serve("/ok/second", (_, response) => void setTimeout(() => response.end("contents"), 1000));
    // Four at a time: all of them take twice as long as they may, and each less.
    const all = Array.from({ length: 16 }, (_, n) =>
      fixedOutput({ name: `second-${n}`, url: `${server.url}/ok/second`, outputHash: sha256("contents") }),
    );
    const built = await daemon.run(
      ["nix-build", "--no-out-link", "--timeout", "2", "-E", `[ (${all.join(") (")}) ]`],
      { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } },
    );
    expect(built.code).not.toBe(0);
    expect(built.stderr).toContain("the build took longer than 2 seconds (the client's --timeout)");
  });

  test("a download ends when the client's time for the build is up", async () => {
    const built = await daemon.run(
      [
        ...["nix-build", "--no-out-link", "--timeout", "1", "-E"],
        fixedOutput({ name: "late", url: `${server.url}/ok/endless`, outputHash: NO_HASH }),
      ],
      { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } },
    );
    expect(built.code).not.toBe(0);
    expect(built.stderr).toContain("the build took longer than 1 seconds (the client's --timeout)");
  });

  test.each<[string, () => Readonly<Record<string, string>>, RegExp]>([
    [
      "a URL that no pattern matches",
      () => ({ url: `${server.url}/elsewhere/file` }),
      /allows fetching none of its URLs \(fixed_outputs\): \S+\/elsewhere\/file/,
    ],
    [
      "a redirect that leaves the pattern",
      () => ({ url: `${server.url}/ok/astray` }),
      /redirected to '\S+\/elsewhere\/file', which no pattern/,
    ],
    [
      "a redirect to a file",
      () => ({ url: `${server.url}/ok/local` }),
      /redirected to 'file:\/\/\/etc\/passwd', which no pattern/,
    ],
    ["what is not there", () => ({ url: `${server.url}/ok/nothing` }), /the server answered 404/],
    ["no URL", () => ({}), /names no URL: its contents are made by its own code/],
    [
      "a git repository",
      () => ({ url: `${server.url}/ok/file`, leaveDotGit: "" }),
      /clones a git repository/,
    ],
    [
      "a weak hash",
      () => ({
        url: `${server.url}/ok/file`,
        outputHashAlgo: "md5",
        outputHash: createHash("md5").update("contents").digest("hex"),
      }),
      /weak hash md5/,
    ],
    [
      "code after the download",
      () => ({ url: `${server.url}/ok/a.tar.gz`, outputHashMode: "recursive", postFetch: code }),
      /Its postFetch may change what was downloaded/,
    ],
  ])("refused: %s", async (what, attributes, words) => {
    const built = await build(
      fixedOutput({ name: what.replaceAll(" ", "-"), outputHash: NO_HASH, ...attributes() }),
    );
    expect(built.code).not.toBe(0);
    expect(built.stderr).toMatch(words);
  });
});
