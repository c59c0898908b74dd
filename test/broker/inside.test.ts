/**
 * Clients inside real sandboxed builds, at a static socket whose folder is mounted where clients look for the
 * daemon's: no environment variable says so. Without a linker the results are not visible inside, which
 * clients that open what they built cannot do without.
 */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { describeEachVersion } from "../../lab/fixture.ts";
import { lab, type NixVersion, sandboxScript } from "../../lab/lab.ts";

/** An inner derivation with an input and a source, written by the outer builder. */
const INNER = `
echo "a source of $name" > file
cat > inner.nix <<'END'
let
  system = builtins.currentSystem;
  builder = "/bin/sh";
  dep = derivation { name = "dep"; inherit system builder; args = [ "-c" "echo dep of OUTER > $out; :" ]; };
in derivation {
  name = "inner"; inherit system builder dep; src = ./file;
  args = [ "-c" "echo a log line; read -r x < $dep; read -r y < $src; echo $x, $y, $dep > $out; :" ];
}
END
sed -i "s/OUTER/$name/" inner.nix
`;

/** Clients that open the derivations which they built: of 2.26 on always, of 2.8 where the daemon's are 2.3's. */
function opensDerivations(client: NixVersion, daemon: NixVersion): boolean {
  return !["2.3", "2.8"].includes(client) || (client === "2.8" && daemon === "2.3");
}

describeEachVersion("inside a build", (version, daemon) => {
  let broker: TestBroker;
  let stranger: string;
  beforeAll(async () => {
    broker = await startBroker(daemon(), { allow: "@nixbld", profile: "build", view: "empty" });
    await daemon().restart(`extra-sandbox-paths = /nix/var/nix/daemon-socket=${broker.socketFolder}`);
    stranger = (await daemon().build(sandboxScript("echo stranger > $out", { name: "stranger" }))).out;
  });
  afterAll(() => broker?.stop());

  /** Runs a script in a build of its own; what it wrote to $out, as `key: words` by line, and its log. */
  const inside = async (client: NixVersion, name: string, script: string) => {
    // The daemon would take the path for an input if it saw it whole.
    const hidden = `stranger=$(echo ${stranger.replace("/nix/store/", "/nix/store/@")} | tr -d @)`;
    const outer = sandboxScript(`${hidden}\n${INNER}\n${script}`, { name: `${name}-${client}`, client });
    const { out, log } = await daemon().build(outer);
    const text = readFileSync(daemon().hostPath(out), "utf8");
    const said = new Map(
      text
        .trim()
        .split("\n")
        .map((line) => {
          const at = line.indexOf(": ");
          return [line.slice(0, at), line.slice(at + 2)] as const;
        }),
    );
    return { said, log };
  };

  const able = lab.versions.filter((client) => !opensDerivations(client, version));
  describe.each(able)("client %s", (client) => {
    test("builds, queries, and is refused what it may not have", async () => {
      const nix = client === "2.3" ? "nix" : "nix --extra-experimental-features nix-command";
      const add = client === "2.3" ? "add-to-store" : "store add-path";
      const { said, log } = await inside(
        client,
        "outer",
        `
        tell() { printf '%s: ' "$1"; shift; "$@" 2>&1 | grep -v '^warning: you don.t have Internet' | tr '\\n' ' '; echo; }
        env | grep -E '^NIX_(REMOTE|CONF|STATE|DAEMON|PATH)' && exit 1
        source=$(nix-store --add file); drv=$(nix-instantiate inner.nix); built=$(nix-build inner.nix --no-out-link)
        dep=$(nix-build inner.nix -A dep --no-out-link)
        {
          echo "paths: $source $drv $built $dep"
          tell references nix-store --query --references $built
          tell requisites nix-store --query --requisites $built
          tell referrers nix-store --query --referrers $dep
          tell outputs nix-store --query --outputs $drv
          tell deriver nix-store --query --deriver $built
          tell size nix-store --query --size $built
          tell stranger nix-store --query --hash $stranger
          tell nobody nix-store --query --hash $\{stranger%-stranger}-nobody
          tell info ${nix} path-info $built
          tell added ${nix} ${add} file
          tell unread ${nix} copy --to file://$PWD/cache $built
          own=$(NIX_REMOTE=$PWD/own nix-store --add inner.nix)
          tell before nix-store --query --references $own
          ${nix} copy --no-check-sigs --from $PWD/own --to daemon $own && echo "copied: $own"
          tell after nix-store --query --size $own
          tell new ${nix} build --file inner.nix --no-link
          tell verify nix-store --verify
          tell gc nix-store --gc --print-dead
          tell again nix-store --add file
        } > $out`,
      );
      const [source, drv, built, dep] = said.get("paths")?.split(" ") ?? [];
      expect(log).toContain("a log line");
      expect(readFileSync(daemon().hostPath(built ?? ""), "utf8")).toBe(
        `dep of outer-${client}, a source of outer-${client}, ${dep}\n`,
      );
      const told = (key: string): string[] => said.get(key)?.trim().split(" ").sort() ?? [];
      expect(drv).toMatch(/-inner\.drv$/);
      expect(told("references")).toEqual([dep]);
      expect(told("requisites")).toEqual([built, dep].sort());
      expect(told("referrers")).toContain(built);
      expect(told("deriver")).toEqual(["unknown-deriver"]);
      expect(told("info")).toEqual([built]);
      expect(told("added")).toEqual([source]);
      // What is copied out is read in the file system too; what is copied in comes from a store of the build's own.
      expect(said.get("unread")).toContain(`${dep}': No such file or directory`);
      expect(said.get("before")).toContain(`${said.get("copied")}' is not valid`);
      expect(Number(said.get("after"))).toBeGreaterThan(300);
      expect(told("new")).toEqual([""]);
      expect(told("again")).toEqual([source]);
      // Every client reads derivations in the file system, where only a linker makes them visible.
      expect(said.get("outputs")).toContain(`opening file '${drv}': No such file or directory`);
      // G1: the words for a path that exists are those for one that does not.
      expect(said.get("stranger")).toContain("-stranger' is not valid");
      expect(said.get("stranger")).toBe(said.get("nobody")?.replaceAll("-nobody", "-stranger"));
      expect(said.get("verify")).toContain("VerifyStore is not allowed here");
      expect(said.get("gc")).toContain("CollectGarbage is not allowed here");
    });
  });

  const unable = lab.versions.filter((client) => opensDerivations(client, version));
  describe.each(unable)("client %s, which opens what it built", (client) => {
    test("says which derivation it cannot open, and the broker stays usable", async () => {
      const { said, log } = await inside(
        client,
        "unable",
        `
        drv=$(nix-instantiate inner.nix)
        if built=$(nix-build inner.nix --no-out-link 2> errors); then exit 1; fi
        cat errors >&2
        {
          echo "drv: $drv"
          echo "error: $(grep error: errors)"
          echo "again: $(nix-store --add file)"
          echo "built: $(nix-store --query --hash $(nix-instantiate --eval --expr '(import ./inner.nix).outPath' | tr -d '"'))"
        } > $out`,
      );
      // It was built; only the client's own look at the store fails.
      expect(log).toContain("a log line");
      expect(said.get("error")).toBe(
        client === "2.34"
          ? `error: store path '${said.get("drv")}' does not exist`
          : `error: opening file '${said.get("drv")}': No such file or directory`,
      );
      expect(said.get("again")).toMatch(/-file$/);
      expect(said.get("built")).toMatch(/^sha256:/);
    });
  });

  test("users that are not build users are told that the socket is not for them", async () => {
    const { code, stderr } = await daemon().run(["nix-store", "--add", "/etc/hosts"], {
      user: "alice",
      env: { NIX_REMOTE: `unix://${broker.socket}` },
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/user \d+ may not use this socket \(allow_uids\)/);
  });
});
