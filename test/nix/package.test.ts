import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { buildHooks } from "../../scripts/build-hooks.ts";
import { projectRoot } from "./fixture.ts";

interface LockedModule {
  readonly integrity?: string;
}

describe("the lock file", () => {
  const { packages } = JSON.parse(readFileSync(join(projectRoot, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockedModule>;
  };

  test("has one hash for each dependency, which is all that the package needs of it", () => {
    const without = Object.entries(packages).filter(
      ([path, { integrity }]) => path !== "" && !/^sha512-\S+$/.test(integrity ?? ""),
    );
    expect(without).toEqual([]);
  });
});

/** The npm of this machine: a folder with `bin/npm-cli.js`. */
function npmFolder(): string {
  const started =
    process.env.npm_execpath ?? realpathSync(execFileSync("which", ["npm"], { encoding: "utf8" }).trim());
  return dirname(dirname(started));
}
function npmSetting(name: string): string {
  return execFileSync(process.execPath, [join(npmFolder(), "bin/npm-cli.js"), "config", "get", name], {
    encoding: "utf8",
  }).trim();
}
function certificates(): string {
  const own = npmSetting("cafile");
  return existsSync(own) ? own : "/etc/ssl/certs/ca-certificates.crt";
}

/** The sandboxes of one version are enough: what is built is Node's, not Nix's, business. */
const version = lab.versions.at(-1) ?? "2.34";

describe("package.nix, with a stand-in for nixpkgs", () => {
  let daemon: Daemon;
  let out: string;
  const hooks = mkdtempSync(join(tmpdir(), "nix-broker-hooks-"));
  beforeAll(async () => {
    buildHooks(hooks);
    chmodSync(hooks, 0o755);
    const inside = (target: string, source: string) => ({ source, target: `/opt/${target}`, readonly: true });
    daemon = await lab.start(version, {
      env: { NPM_CONFIG_REGISTRY: npmSetting("registry") },
      binds: [
        inside("node", process.execPath),
        inside("npm", npmFolder()),
        inside("certificates.pem", certificates()),
        inside("hooks", hooks),
      ],
      sandboxPaths: ["/opt"],
    });
    const file = join(projectRoot, "test/nix/stand-in-npm.nix");
    const expression = `import ${file} { system = builtins.currentSystem; }`;
    ({ out } = await daemon.build(expression, { timeoutMs: 600_000 }));
  }, 600_000);
  afterAll(async () => {
    await daemon?.stop();
    rmSync(hooks, { recursive: true });
  });

  test("builds in a sandbox without network, of tarballs that npm fetched by the lock file's hashes", async () => {
    const run = await daemon.run([`${out}/bin/nix-broker`, "--version"]);
    expect(run).toMatchObject({ code: 0, stdout: "0.1.0\n" });
  });

  test("keeps none of the tarballs, and Node", async () => {
    const { stdout } = await daemon.run(["nix-store", "-q", "--references", out]);
    const names = stdout.split("\n").map((path) => path.slice("/nix/store/".length + 33));
    expect(names.sort()).toEqual(["", "nix-broker-0.1.0", "nodejs-24"]);
  });

  test("brings manual pages and completions, where they are looked for", async () => {
    const places = [
      ...[
        "share/man/man1/nix-broker.1",
        "share/man/man1/nix-broker-audit.1",
        "share/man/man5/nix-broker.toml.5",
      ],
      ...["share/bash-completion/completions/nix-broker", "share/zsh/site-functions/_nix-broker"],
      "share/fish/vendor_completions.d/nix-broker.fish",
    ];
    const listed = await daemon.run(["ls", ...places.map((place) => `${out}/${place}`)]);
    expect(listed).toMatchObject({ code: 0 });
  });

  test("brings the pages, and the library that their examples import", async () => {
    const example = `${out}/share/doc/nix-broker/examples/packages/default.nix`;
    const { stdout } = await daemon.run(["cat", example, `${out}/share/doc/nix-broker/README.md`]);
    expect(stdout).toContain(`${out}/share/nix-broker/lib `);
    expect(stdout).toContain("](install.md)");
    expect(await daemon.run(["ls", `${out}/share/nix-broker/lib/default.nix`])).toMatchObject({ code: 0 });
  });

  test("its units, hooks and the linker name programs by their store paths", async () => {
    const read = async (path: string): Promise<string> =>
      (await daemon.run(["cat", `${out}/${path}`])).stdout;
    expect(await read("lib/systemd/system/nix-broker.service")).toContain(
      `ExecStart=${out}/bin/nix-broker serve\n`,
    );
    expect(await read("lib/systemd/system/nix-broker-linker.service")).toContain(
      `ExecStart=${out}/bin/nix-broker linker\n`,
    );
    expect(await read("libexec/nix-broker/nix-broker-root")).toMatch(
      /exec "\/nix\/store\/[^"]+-nodejs-24\/bin\/node"/,
    );
    expect(await read("lib/tmpfiles.d/nix-broker.conf")).toContain("d /run/nix-broker 0755 root root\n");
    expect(await read("lib/sysusers.d/nix-broker.conf")).toContain("u nix-broker");
    const hook = await daemon.run([`${out}/libexec/nix-broker/pre-build-hook.sh`, "/none.drv"]);
    expect(hook).toMatchObject({ code: 0, stderr: "" });
    const compiled = await daemon.run([`${out}/libexec/nix-broker/pre-build-hook`, "/none.drv"]);
    expect(compiled).toMatchObject({ code: 0, stderr: "" });
  });
});
