import { readFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "smol-toml";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { parseConfig } from "../../src/config/load.ts";
import { rootConfigText } from "../../src/config/root-config.ts";
import { nixFiles, projectRoot } from "./fixture.ts";

/** A nixpkgs on this machine, if `NIXPKGS` or `NIX_PATH` names one: then its own lib evaluates the module, too. */
const nixpkgs =
  process.env.NIXPKGS ??
  process.env.NIX_PATH?.split(":")
    .find((entry) => entry.startsWith("nixpkgs=/"))
    ?.slice("nixpkgs=".length);
const version = lab.versions.at(-1) ?? "2.34";

interface Evaluated {
  readonly failures: readonly string[];
  readonly toml: Record<string, unknown>;
  readonly rootConfig: { readonly mode: string; readonly script: string };
  readonly nix: Record<string, unknown>;
  readonly sessionVariables: Record<string, string>;
  readonly services: Record<string, Record<string, unknown>>;
  readonly sockets: Record<string, unknown>;
}

describe.each(["the stand-in for nixpkgs' lib", ...(nixpkgs ? ["nixpkgs' own lib"] : [])])(
  "the NixOS module, evaluated by %s",
  (which) => {
    let daemon: Daemon;
    beforeAll(async () => {
      const binds = nixpkgs ? [{ source: nixpkgs, target: "/nixpkgs", readonly: true }] : [];
      daemon = await lab.start(version, { binds });
    });
    afterAll(() => daemon?.stop());

    const run = (configuration: string, attribute = "") => {
      const lib = which.startsWith("nixpkgs") ? "/nixpkgs/lib" : `${projectRoot}/test/nix/stand-in-lib.nix`;
      const expression = `(import ${projectRoot}/test/nix/module-eval.nix { lib = import ${lib}; configuration = { lib, ... }: { ${configuration} }; })${attribute}`;
      return daemon.run(["nix-instantiate", "--eval", "--strict", "--json", "-E", expression]);
    };
    const evaluate = async (configuration: string): Promise<Evaluated> => {
      const { code, stdout, stderr } = await run(configuration);
      if (code !== 0) throw new Error(stderr);
      return JSON.parse(stdout) as Evaluated;
    };
    /** The TOML that the module makes; the broker takes it. */
    const checked = ({ toml }: Evaluated) => parseConfig(stringify(toml), "nix-broker.toml");

    test("enabled and nothing else: hooks, feature, user, units; the configuration passes check-config", async () => {
      const made = await evaluate("services.nix-broker.enable = true;");
      expect(made.failures).toEqual([]);
      expect(made.nix).toEqual({
        "extra-allowed-users": ["nix-broker"],
        "extra-system-features": ["nix-broker"],
        "pre-build-hook": "/nix/store/nix-broker/libexec/nix-broker/pre-build-hook",
        "post-build-hook": "/nix/store/nix-broker/libexec/nix-broker/post-build-hook",
      });
      expect(made.rootConfig.mode).toBe("0444");
      expect(made.rootConfig.script).toContain(
        "check-config --config /nix/store/nix-broker.toml --root-subset",
      );
      expect(made.sessionVariables).toEqual({ NIX_REMOTE: "daemon" });
      expect(made.services["nix-broker-linker"]).toEqual({
        ExecStart: ["", "/nix/store/nix-broker/bin/nix-broker linker --remount-store"],
        CapabilityBoundingSet: "CAP_SYS_ADMIN",
        SystemCallFilter: "@mount",
      });
      expect(made.sockets).toEqual({ "nix-broker-fetch": { wantedBy: ["sockets.target"] } });
      const config = await checked(made);
      expect(config.hooks.profile.name).toBe("build");
      expect(config.listen).toEqual([]);
    });

    test("hooks that somebody else set are run afterwards", async () => {
      const made = await evaluate(
        'services.nix-broker.enable = true; nix.settings.post-build-hook = "/etc/upload.sh"; nix.settings.cores = 2;',
      );
      expect(made.nix).toMatchObject({
        "post-build-hook": "/nix/store/nix-broker/libexec/nix-broker/post-build-hook",
        cores: 2,
      });
      const text = rootConfigText(await checked(made));
      expect(text).toContain("next_post_build_hook=/etc/upload.sh\n");
      expect(text).toContain("next_pre_build_hook=\n");
    });

    test.each([
      ['lib.mkForce "/etc/upload.sh"', "/etc/upload.sh"],
      ['lib.mkIf true (lib.mkDefault "/etc/upload.sh")', "/etc/upload.sh"],
      ['lib.mkMerge [ "/etc/upload.sh" (lib.mkDefault "/etc/weaker.sh") ]', "/etc/upload.sh"],
      ['lib.mkIf false "/etc/upload.sh"', ""],
      ["null", ""],
    ])("another hook that is defined as %s", async (definition, expected) => {
      const made = await evaluate(
        `services.nix-broker.enable = true; nix.settings.post-build-hook = ${definition};`,
      );
      expect(made.nix["post-build-hook"]).toContain("/libexec/nix-broker/post-build-hook");
      expect(rootConfigText(await checked(made))).toContain(`next_post_build_hook=${expected}\n`);
    });

    test("named jails become a part of the configuration", async () => {
      const made = await evaluate(
        'services.nix-broker = { enable = true; jails.ci = { allow_uids = [ "alice" ]; profile = "mine"; lifetime = "8 h"; }; jails.web.allow_uids = [ "*" ]; settings.profiles.mine.extends = "agent"; };',
      );
      expect(made.failures).toEqual([]);
      expect((await checked(made)).listen.map(({ profile, jail }) => [profile.name, jail])).toEqual([
        ["mine", { name: "ci", lifetime: 28_800 }],
        ["agent", { name: "web", lifetime: Number.POSITIVE_INFINITY }],
      ]);
    });

    test("a shared socket in place of hooks", async () => {
      const made = await evaluate(
        "services.nix-broker = { enable = true; perBuild.enable = false; sharedSocket.enable = true; rootUsesDaemon = false; };",
      );
      expect(made.nix).toEqual({
        "extra-allowed-users": ["nix-broker"],
        "extra-system-features": ["nix-broker"],
        "extra-sandbox-paths": ["/nix/var/nix/daemon-socket=/run/nix-broker/shared"],
      });
      expect(made.sockets).toEqual({
        "nix-broker": { wantedBy: ["sockets.target"] },
        "nix-broker-fetch": { wantedBy: ["sockets.target"] },
      });
      expect(made.sessionVariables).toEqual({});
      expect((await checked(made)).listen).toMatchObject([
        { path: "/run/nix-broker/shared/socket", view: "build" },
      ]);
    });

    test("settings, page and metrics with tokens as credentials", async () => {
      const made = await evaluate(`services.nix-broker = {
        enable = true;
        audit.retentionDays = 7;
        audit.journal = true;
        metrics = { listen = 9464; tokenFile = "/var/keys/metrics"; };
        web = { listen = 9465; tokenFile = "/var/keys/web"; };
        settings.hooks.profile = "mirror-only";
        settings.hooks.build_users = 16;
        settings.log.level = "debug";
        settings.profiles.mirror-only = { extends = "build"; fixed_outputs = [ "https://mirror.example.org/*" ]; };
        settings.limits.builds = 12;
      };`);
      expect(made.services["nix-broker"]?.LoadCredential).toEqual([
        "metrics:/var/keys/metrics",
        "web:/var/keys/web",
      ]);
      const config = await checked(made);
      expect(config.hooks.profile.name).toBe("mirror-only");
      expect(config.web?.tokenFile).toBe("/run/credentials/nix-broker.service/web");
      expect(config.audit).toMatchObject({ jsonLines: true, retentionDays: 7 });
      expect(config.log.level).toBe("debug");
      // What is not set is not in the file.
      expect(made.toml.limits).toEqual({ builds: 12 });
      expect(made.toml.profiles).toEqual({
        "mirror-only": { extends: "build", fixed_outputs: ["https://mirror.example.org/*"] },
      });
    });

    test.each([
      ["nix.settings.sandbox = false;", "needs sandboxed builds"],
      ['nix.settings.trusted-users = [ "root" "nix-broker" ];', "trusted-users must not have"],
      ['nix.settings.trusted-users = [ "*" ];', "trusted-users must not have"],
      ["nix.enable = false;", "needs the Nix daemon"],
      [
        'services.nix-broker.settings.profiles.p = { extends = "build"; required_system_features = [ "uid-range" ]; };',
        "no profile can allow the system feature uid-range",
      ],
      [
        'services.nix-broker.settings.upstream.command = [ "ssh" "host" ];',
        "need the Nix daemon of this machine",
      ],
      ['nix.extraOptions = "post-build-hook = /etc/upload.sh";', "nix.extraOptions sets a hook"],
      [
        'nix.buildMachines = [ { hostName = "far"; supportedFeatures = [ "kvm" "nix-broker" ]; } ];',
        "nix.buildMachines must not have the feature nix-broker",
      ],
      ["services.nix-broker.web.tokenFile = ./token;", "must not be in the Nix store"],
      ['services.nix-broker.web.tokenFile = "/nix/store/token";', "must not be in the Nix store"],
      ['services.nix-broker.settings.runtime.user = "alice";', "settings.runtime.user"],
    ])("%s is refused with a message", async (configuration, message) => {
      const { failures } = await evaluate(`services.nix-broker.enable = true; ${configuration}`);
      expect(failures).toHaveLength(1);
      expect(failures[0]).toContain(message);
    });

    test("a value of the wrong type, and an option that does not exist, are errors", async () => {
      expect(
        (await run('services.nix-broker.enable = true; services.nix-broker.settings.log.level = "loud";'))
          .stderr,
      ).toContain("services.nix-broker.settings.log.level");
      expect(
        (await run("services.nix-broker.enable = true; services.nix-broker.settings.upstream.pool = 65;"))
          .stderr,
      ).toContain("services.nix-broker.settings.upstream.pool");
      expect((await run("services.nix-broker.enabled = true;")).stderr).toContain("does not exist");
    });

    test("a key that the broker does not know gets into the file, and not past its check", async () => {
      const made = await evaluate(
        'services.nix-broker = { enable = true; settings.hooks.profil = "build"; };',
      );
      await expect(checked(made)).rejects.toThrow(/profil.*profile/s);
    });

    test("disabled it defines nothing", async () => {
      const { code, stdout } = await run("", ".nix");
      expect([code, stdout.trim()]).toEqual([0, "{}"]);
    });
  },
);

describe.each(lab.versions)("every Nix file [%s]", (nixVersion) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(nixVersion);
  });
  afterAll(() => daemon?.stop());

  test("parses", async () => {
    const files = nixFiles().map((file) => join(projectRoot, file));
    expect(files.length).toBeGreaterThan(20);
    const { code, stderr } = await daemon.run(["nix-instantiate", "--parse", ...files]);
    expect([code, stderr]).toEqual([0, ""]);
  });
});

test("Nix files are written in the official style, as far as a line can tell", () => {
  for (const file of nixFiles()) {
    const lines = readFileSync(join(projectRoot, file), "utf8").split("\n");
    for (const [index, line] of lines.entries()) {
      const place = `${file}:${index + 1}`;
      expect(line, `${place}: trailing blanks or tabs`).not.toMatch(/[ \t]$|\t/);
      expect((/^ */.exec(line)?.[0].length ?? 0) % 2, `${place}: odd indentation`).toBe(0);
      expect(line.length, `${place}: longer than 130 characters`).toBeLessThanOrEqual(
        /"[^"]{60,}"|''/.test(line) ? 400 : 130,
      );
    }
  }
});
