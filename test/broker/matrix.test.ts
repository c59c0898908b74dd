/** Every client of the lab on every daemon of the lab, through a static socket and through `stdio`. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { installSsh, startBroker, type TestBroker } from "../../lab/broker.ts";
import { sandboxScript } from "../../lab/expression.ts";
import { describeEachVersion } from "../../lab/fixture.ts";
import { lab, type NixVersion } from "../../lab/lab.ts";

/** Names are the client's, so that no client finds done what another one did. */
function buildFile(client: NixVersion): string {
  const inStore = { builder: '"/bin/sh"' };
  const input = sandboxScript("mkdir $out; echo of the input > $out/text", {
    name: `input-${client}`,
    attributes: inStore,
  });
  return sandboxScript('echo "a log line" >&2; echo $input > $out; cat $input/text $source >> $out', {
    name: `built-${client}`,
    attributes: { ...inStore, input, source: "./file" },
  });
}

describeEachVersion("G4: every client", (_, daemon) => {
  let broker: TestBroker;
  let ssh: string;
  beforeAll(async () => {
    broker = await startBroker(daemon());
    ssh = await installSsh(daemon(), { profile: "agent", user: "alice" });
    for (const client of lab.versions) {
      const lines = [
        `mkdir -p ${folder(client)}/tree ${folder(client)}/home; cd ${folder(client)}`,
        `echo a source of ${client} > file; echo a file of a tree of ${client} > tree/file`,
        "cat > build.nix; sed s/built-/bare-/ build.nix > bare.nix",
      ];
      const made = await daemon().run(["bash", "-c", lines.join("\n")], {
        user: "alice",
        input: buildFile(client),
      });
      expect(made).toMatchObject({ code: 0 });
    }
  });
  afterAll(() => broker?.stop());

  const folder = (client: NixVersion): string => `/tmp/matrix-${client}`;
  const run = (client: NixVersion, lines: readonly string[]) =>
    daemon().run(["bash", "-c", ["set -e", ...lines].join("\n")], {
      user: "alice",
      client,
      cwd: folder(client),
      env: {
        PATH: `${ssh}:${lab.clientFolder(client)}:/usr/bin:/bin`,
        HOME: `${folder(client)}/home`,
        NIX_REMOTE: `unix://${broker.socket}`,
        BROKER: `unix://${broker.socket}`,
        ...(client !== "2.3" && { NIX_CONFIG: "experimental-features = nix-command" }),
      },
    });
  /** Runs lines that must all work; the words that they print. */
  const words = async (client: NixVersion, ...lines: string[]): Promise<string[]> => {
    const { code, stdout, stderr } = await run(client, lines);
    expect({ code, stderr }).toEqual({ code: 0, stderr });
    return stdout.trim().split(/\s+/);
  };
  /** Runs a line that must fail; what it says. */
  const refusal = async (client: NixVersion, line: string): Promise<string> => {
    const { code, stdout, stderr } = await run(client, [line]);
    expect({ code, stdout }).not.toEqual({ code: 0, stdout });
    return stderr;
  };

  test.concurrent.for(lab.versions)("of %s builds with inputs", async (client, { expect }) => {
    const { code, stdout, stderr } = await run(client, [
      // Of its own, for only the client whose request builds it sees the log.
      "sed 's/built-/first-built-/; s/input-/first-input-/' build.nix > first.nix",
      "nix-build first.nix --no-out-link",
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr });
    expect(stderr).toContain("a log line");
    const text = readFileSync(daemon().hostPath(stdout.trim()), "utf8");
    expect(text).toMatch(
      new RegExp(`^/nix/store/[0-9a-z]{32}-first-input-${client}\nof the input\na source of ${client}\n$`),
    );
  });

  test.concurrent.for(lab.versions)("of %s adds and queries", async (client, { expect }) => {
    const [source = "", derivation = "", out = "", input = ""] = await words(
      client,
      "nix-store --add file; nix-instantiate build.nix; nix-build build.nix --no-out-link; nix-build build.nix -A input --no-out-link",
    );
    expect(source).toMatch(/^\/nix\/store\/[0-9a-z]{32}-file$/);
    const query = (...kind: string[]) => words(client, `nix-store --query ${kind.join(" ")}`);
    expect(await query("--references", out)).toEqual([input]);
    expect((await query("--requisites", out)).sort()).toEqual([input, out].sort());
    expect(await query("--requisites", "--include-outputs", derivation)).toEqual(
      expect.arrayContaining([source, derivation, out, input]),
    );
    expect(await query("--referrers", input)).toContain(out);
    expect(await query("--outputs", derivation)).toEqual([out]);
    expect(await query("--binding", "source", derivation)).toEqual([source]);
    // Not told (G3), though the daemon knows it.
    expect(await query("--deriver", out)).toEqual(["unknown-deriver"]);
    const [hash, ofFile] = await words(
      client,
      `nix-store --query --hash ${source}; nix-hash --type sha256 --base32 file`,
    );
    expect(hash).toBe(`sha256:${ofFile}`);
  });

  test.concurrent.for(lab.versions)("of %s has the newer commands", async (client, { expect }) => {
    const add = client === "2.3" ? "nix add-to-store" : "nix store add-path";
    const [tree = "", listed, ...closure] = await words(
      client,
      `t=$(${add} tree); echo $t; nix path-info $t`,
      "nix build --file build.nix -o linked; nix path-info -r $(readlink linked)",
    );
    expect(tree).toMatch(/^\/nix\/store\/[0-9a-z]{32}-tree$/);
    expect(listed).toBe(tree);
    expect(closure.map((path) => path.slice(44)).sort()).toEqual([`built-${client}`, `input-${client}`]);
  });

  test.concurrent.for(lab.versions)("of %s copies to the broker and from it", async (client, { expect }) => {
    const copied = await words(
      client,
      // Into a cache past the broker, from there to the broker, from the broker into another cache.
      "echo copied >> tree/file; t=$(NIX_REMOTE=daemon nix-store --add tree)",
      "nix copy --from daemon --to file://$PWD/cache $t",
      "! nix-store --check-validity $t 2> /dev/null",
      "nix copy --no-check-sigs --from file://$PWD/cache --to $BROKER $t",
      "nix-store --check-validity $t",
      "nix copy --from $BROKER --to file://$PWD/back $(nix-build build.nix --no-out-link) $t",
      "grep -h ^NarHash cache/*.narinfo; for n in built input tree; do grep -h ^NarHash $(grep -l ^StorePath.*-$n back/*.narinfo); done",
    );
    const hashes = copied.filter((word) => word !== "NarHash:");
    expect(hashes).toHaveLength(4);
    expect(hashes[0]).toBe(hashes[3]);
    const message = await refusal(
      client,
      "o=$(NIX_REMOTE=daemon nix-build bare.nix --no-out-link); nix copy --no-check-sigs --from daemon --to $BROKER $o",
    );
    expect(message).toContain("is not content-addressed, so nothing shows that it is what it says");
  });

  test.concurrent.for(lab.versions)("of %s works by ssh-ng through stdio", async (client, { expect }) => {
    const [out = "", ...names] = await words(
      client,
      "sed s/built-/by-ssh-/ build.nix > ssh.nix; o=$(nix-build ssh.nix --no-out-link --store ssh-ng://host); echo $o",
      "nix copy --from ssh-ng://host --to file://$PWD/ssh $o",
      "cat ssh/*.narinfo | sed -n 's/^StorePath: .*store.[^-]*-//p' | sort",
    );
    expect(names).toEqual([`by-ssh-${client}`, `input-${client}`]);
    // From a store of the client's own, so that the daemon cannot have it but by this way.
    const [own = ""] = await words(
      client,
      "mkdir sent; echo sent by $PWD > sent/file; t=$(NIX_REMOTE=$PWD/own nix-store --add sent)",
      "if NIX_REMOTE=daemon nix-store --check-validity $t 2> /dev/null; then exit 1; fi",
      "nix copy --no-check-sigs --from $PWD/own --to ssh-ng://host $t",
      "NIX_REMOTE=daemon nix-store --check-validity $t; echo $t",
    );
    expect(readFileSync(daemon().hostPath(`${own}/file`), "utf8")).toBe(`sent by ${folder(client)}\n`);
    expect(readFileSync(daemon().hostPath(out), "utf8")).toContain(`a source of ${client}`);
  });

  test.concurrent.for(lab.versions)("of %s has no authority", async (client, { expect }) => {
    const none = "is not allowed here: a sandbox has no authority over the store";
    const added = "nix-store --add file";
    expect(await refusal(client, "nix-store --verify")).toContain(`error: VerifyStore ${none}`);
    expect(await refusal(client, "nix-store --gc")).toContain(`error: CollectGarbage ${none}`);
    expect(await refusal(client, `nix-store --delete $(${added})`)).toContain(
      `error: CollectGarbage ${none}`,
    );
    expect(await refusal(client, "nix-collect-garbage")).toContain(`error: CollectGarbage ${none}`);
    expect(await words(client, added)).toEqual([expect.stringMatching(/-file$/)]);
  });
});
