/** What a jail may not do, each tried from inside. */
import { hash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeEachVersion } from "../../lab/fixture.ts";
import { program } from "../../lab/program.ts";
import { projectRoot, simple } from "../nix/fixture.ts";
import { clientConfig, JailLab } from "./fixture.ts";

const contents = "fetched\n";
const DENIED = "not allowed here";
const NOT_THERE = "allows fixed-output derivations only if the output is already in the view";

/** A fixed output that the daemon itself fetches. */
function fetched(name: string, url: string): string {
  return `derivation { name = "${name}"; system = "builtin"; builder = "builtin:fetchurl"; url = "${url}"; urls = [ "${url}" ];
    unpack = false; executable = false; preferLocalBuild = true; outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "${hash("sha256", contents)}"; }`;
}

describeEachVersion(
  "from inside a jail",
  (_version, daemon) => {
    let jails: JailLab;
    let server: Server;
    let address: string;
    /** What the server was asked for. */
    const asked: string[] = [];
    /** A path that somebody else has built. */
    let theirs: string;

    beforeAll(async () => {
      jails = await JailLab.of(daemon());
      server = createServer((request, response) => {
        const { url = "" } = request;
        asked.push(url);
        if (url.endsWith("/away")) response.writeHead(302, { location: `${address}/elsewhere` });
        response.end(contents);
      });
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
      theirs = (await daemon().build(simple("theirs"))).out;
    });
    afterAll(() => {
      server?.close();
    });

    test("G4: the only daemon is the broker, however a client looks for it", async () => {
      const sockets = await jails.bash(
        // What a file is mounted on tells find nothing of its type.
        `find / \\( -path /proc -o -path /usr -o -path /nix/store \\) -prune -o ! -type l -exec test -S {} \\; -print`,
      );
      expect(sockets.stdout).toBe("/nix/var/nix/daemon-socket/socket\n");
      for (const remote of ["daemon", "", "auto", "unix:///proc/1/root/nix/var/nix/daemon-socket/socket"]) {
        const { code, stderr } = await jails.bash(`NIX_REMOTE=${remote} nix-store --gc`);
        expect(code, remote).not.toBe(0);
        expect(stderr, remote).toContain(`CollectGarbage is ${DENIED}`);
      }
      const local = await jails.bash(
        `NIX_REMOTE=local nix-store --delete ${theirs}; touch /nix/store/x /nix/var/nix/x`,
      );
      expect(local.code).not.toBe(0);
      expect(await jails.isValid(theirs)).toBe(true);
    });

    test("no network: neither for the command, nor by what the daemon builds, nor by caches that it names", async () => {
      const device = await jails.bash("tail -n +3 /proc/net/dev | cut -d: -f1");
      expect(device.stdout.trim()).toBe("lo");
      const own = [
        `exec 3<>/dev/tcp/${address.slice(7).replace(":", "/")}`,
        `nix-instantiate --eval --option download-attempts 1 -E 'builtins.readFile (builtins.fetchurl "${address}/evaluated")'`,
      ];
      for (const line of own) expect((await jails.bash(line)).code, line).not.toBe(0);
      const built = await jails.bash(
        `nix-build --no-out-link -E '${fetched("denied", `${address}/denied`)}'`,
      );
      expect(built.stderr).toContain(NOT_THERE);
      const script = await jails.bash(
        `nix-build --no-out-link -E 'derivation { name = "by-script"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "exec 3<>/dev/tcp/x" ]; outputHashAlgo = "sha256"; outputHash = "${hash("sha256", "x")}"; }'`,
      );
      expect(script.stderr).toContain(NOT_THERE);
      const lax = await jails.bash(`nix-build --no-out-link -E '${fetched("lax", `${address}/lax`)}'`, {
        args: ["--profile", "build"],
      });
      expect(lax.stderr).toContain(NOT_THERE);
      expect(lax.stderr).toContain("a jail without --net has none");
      const cache = `--option substituters ${address} --option extra-substituters ${address} --option trusted-substituters ${address}`;
      await jails.bash(`nix-build --no-out-link ${cache} -E '${simple("never-cached")}'`);
      await jails.bash(`nix-store --realise ${cache} /nix/store/${"0".repeat(32)}-missing`);
      expect(asked).toEqual([]);
    });

    test("with --net the command has the network, and builds have not", async () => {
      const args = ["--net"];
      const fetch = `builtins.readFile (builtins.fetchurl "${address}/evaluated")`;
      const own = await jails.bash(`nix-instantiate --eval -E '${fetch}'`, { args });
      expect(own).toMatchObject({ code: 0, stdout: '"fetched\\n"\n' });
      expect(asked.splice(0)).toEqual(["/evaluated"]);
      const built = await jails.bash(
        `nix-build --no-out-link -E '${fetched("denied-too", `${address}/x`)}'`,
        { args },
      );
      expect(built.stderr).toContain(NOT_THERE);
      expect(asked).toEqual([]);
    });

    test("with --net and a profile that allows it, builds have the network, too", async () => {
      const args = ["--net", "--profile", "build"];
      const built = await jails.bash(
        `nix-build --no-out-link -E '${fetched("permitted", `${address}/permitted`)}'`,
        { args },
      );
      expect(built).toMatchObject({ code: 0, stderr: expect.not.stringContaining("a jail without --net") });
      expect(asked.splice(0)).toEqual(["/permitted"]);
    });

    test("what --allow-url matches is fetched for builds, and nothing else", async () => {
      await jails.asAlice("cat > ../private.toml", '[fetch]\nprivate_hosts = ["127.0.0.1"]\n');
      const args = ["--config", "/home/alice/private.toml", "--allow-url", `${address}/allowed/*`];
      const inside = (name: string, url: string) =>
        jails.bash(`cat $(nix-build --no-out-link -E '${fetched(name, url)}')`, { args });
      expect(await inside("allowed", `${address}/allowed/a`)).toMatchObject({ code: 0, stdout: contents });
      expect((await inside("outside", `${address}/b`)).stderr).toContain("allows fetching none of its URLs");
      expect((await inside("dots", `${address}/allowed/../b`)).stderr).toContain(
        "allows fetching none of its URLs",
      );
      const redirected = await inside("redirected", `${address}/allowed/away`);
      expect(redirected).toMatchObject({ stdout: "" });
      expect(redirected.stderr).toContain(`${address}/elsewhere`);
      expect(asked.splice(0)).toEqual(["/allowed/a", "/allowed/away"]);
    });

    test("G4: settings and signatures stay as they are, and so do the rights of builds", async () => {
      const options = "--option sandbox false --option build-users-group ''";
      const looks = simple("sandboxed", "if [ -e /home/alice ]; then echo open; else echo closed; fi > $out");
      const built = await jails.bash(`cat $(nix-build --no-out-link ${options} -E '${looks}')`);
      expect(built.stdout).toBe("closed\n");
      const raw = await jails.run([process.execPath, join(projectRoot, "test/jail/raw.ts"), theirs], {
        args: ["--ro-bind", projectRoot, "--ro-bind", dirname(process.execPath)],
      });
      expect(raw.stderr).toBe("");
      const told = JSON.parse(raw.stdout);
      for (const operation of ["optimise", "verify", "sign"])
        expect(told[operation], operation).toContain(DENIED);
      expect(told).toMatchObject({ roots: [], substitutes: [] });
    });

    test("its variables are for what is in the jail: no loader outside reads them", async () => {
      const args = [
        "--env",
        "LD_DEBUG=libs",
        "--env",
        "LD_DEBUG_OUTPUT=/home/alice/told",
        "--env",
        "LD_PRELOAD=",
      ];
      const ran = await jails.bash("ls /home/alice; env", { args });
      expect(ran).toMatchObject({
        code: 0,
        stdout: expect.stringContaining("LD_DEBUG_OUTPUT=/home/alice/told\n"),
      });
      expect(await jails.asRoot("ls /home/alice")).not.toContain("told");
    });

    test("a folder that is exchanged while the jail is made is not mounted", async () => {
      // As another jail could, in a folder of its own, between the look at the paths and their mounting.
      await jails.asRoot(`mkdir -p /var/swap && cat > /var/swap/bwrap <<'END'
#!/bin/sh
mv /home/alice/project/inner /home/alice/project/was && ln -s /home/alice /home/alice/project/inner
exec /var/bwrap/bwrap "$@"
END
chmod 755 /var/swap/bwrap`);
      const path = "/var/swap:/usr/bin:/bin";
      for (const options of [
        { cwd: "/home/alice/project/inner" },
        { args: ["--bind", "/home/alice/project/inner"], cwd: "/home/alice/other" },
        { args: ["--home", "/home/alice/project/inner"], cwd: "/home/alice/other" },
      ]) {
        await jails.asAlice("rm -rf inner was && mkdir -p inner ../other");
        const { code, stdout, stderr } = await jails.bash("echo ran; ls -a ~ /home/alice/project/inner", {
          ...options,
          env: { PATH: path },
        });
        expect({ code, stdout }).toEqual({ code: 125, stdout: "" });
        expect(stderr).toMatch(
          /nix-broker: \/home\/alice(\/project\/inner)? was replaced while the jail was made/,
        );
      }
      await jails.asAlice("rm -rf inner was");
    });

    test("a folder that a link takes elsewhere while the jail is made is not mounted there", async () => {
      await jails.asRoot(`mkdir -p /var/back && cat > /var/back/bwrap <<'END'
#!/bin/bash
cd /home/alice/project && mv inner was && ln -s ../.. inner
before=()
while [ "$1" != -- ]; do before+=("$1"); shift; done
exec /var/bwrap/bwrap "\${before[@]}" -- /bin/sh -c 'cd /home/alice/project && rm inner && . ./then; exec "$@"' sh "$@"
END
chmod 755 /var/back/bwrap`);
      // A link that is there when what was mounted is looked at leads, by the second one, out of the jail to what was judged.
      for (const then of ["mv was inner", "ln -s /home/alice/project/was inner"]) {
        await jails.asAlice(`rm -rf inner was; mkdir -p inner/alice; echo '${then}' > then`);
        const { code, stdout, stderr } = await jails.bash("ls -a ~", {
          args: ["--bind", "inner/alice"],
          env: { PATH: "/var/back:/usr/bin:/bin" },
        });
        expect({ code, stdout }, then).toEqual({ code: 125, stdout: "" });
        expect(stderr).toMatch(/\/home\/alice\/project\S* was replaced while the jail was made/);
      }
      await jails.asAlice("rm -rf inner was then");
    });

    test("what was not exchanged is taken for itself, whatever its name", async () => {
      const cwd = "/home/alice/a b\\040\nü";
      await jails.asAlice(`mkdir -p '${cwd}'`);
      expect(await jails.bash("pwd", { cwd })).toMatchObject({ code: 0, stdout: `${cwd}\n` });
      // On most machines /bin is a link, in the jail as well.
      const ran = await jails.bash("echo ran", { args: ["--ro-bind", "/bin/bash"] });
      expect(ran, ran.stderr).toMatchObject({ code: 0, stdout: "ran\n" });
    });

    test("a link that a jail left where the next one mounts something is not followed", async () => {
      await jails.asAlice("mkdir -p ../outside && echo secret > ../secret && touch ../.gitconfig");
      const kept = ["--home", "/home/alice/kept"];
      await jails.bash(
        "ln -sfn ../secret settings; ln -sfn ../outside kept; ln -sfn /oldroot/home/alice/made ~/.gitconfig",
        { args: kept },
      );
      for (const args of [
        ["--ro-bind", "settings"],
        ["--home", "kept"],
        ["--home", "kept/new"],
        ["--home", "/home/alice/.local/state/nix-broker/new"],
        [...kept, "--ro-bind", "/home/alice/.gitconfig"],
      ]) {
        const { code, stdout, stderr } = await jails.bash("cat settings; touch ~/by-the-jail", { args });
        expect({ code, stdout }, stderr).toEqual({ code: 125, stdout: "" });
        expect(stderr).toMatch(/an earlier jail may have made it|the folder of nix-broker's audits/);
      }
      expect(await jails.asAlice("ls ../outside ../made 2> /dev/null || true")).toBe("../outside:\n");
      const file = await jails.bash("ls", { args: ["--home", "../secret"] });
      expect(file).toMatchObject({ code: 125, stderr: expect.stringContaining("--home ../secret: EEXIST") });
      expect(await jails.asAlice("ls ../.local/state/nix-broker")).not.toContain("new");
      await jails.asAlice("rm -r settings kept ../kept ../outside ../secret ../.gitconfig");
    });

    test("what a jail names does nothing to the terminal that the next one is started at", async () => {
      const made = await jails.bash(
        "mkdir $'a\\e]0;b' && ln -s $'../project/a\\e]0;b' c && ln -s /etc $'a\\e]0;b/out'",
      );
      expect(made).toMatchObject({ code: 0 });
      const { code, stderr } = await jails.bash("true", { args: ["--bind", "/home/alice/project/c/out"] });
      expect(code).toBe(125);
      expect(stderr).not.toContain("\u001b");
      const inner = await jails.bash("true", { args: ["--bind", "c"], cwd: "/home/alice/project" });
      expect(inner.stderr).not.toContain("\u001b");
      await jails.asAlice("rm -r a* c");
    });

    test("what the broker keeps for a moment is not in a folder of the jail's", async () => {
      await jails.asAlice("ln -sfn /home/alice/project/missing ../tmp-link");
      await jails.asAlice("cat > ../private.toml", '[fetch]\nprivate_hosts = ["127.0.0.1"]\n');
      const args = ["--config", "/home/alice/private.toml", "--allow-url", `${address}/*`];
      for (const folder of ["project/missing", "tmp-link"]) {
        const line = `cat $(nix-build --no-out-link -E '${fetched(basename(folder), `${address}/kept`)}')`;
        const ran = await jails.bash(line, { args, env: { TMPDIR: `/home/alice/${folder}` } });
        expect(ran, ran.stderr).toMatchObject({ code: 0, stdout: contents });
      }
      asked.splice(0);
      await jails.asAlice("rm ../tmp-link");
    });

    test("what is read-only in a folder stays so, also if the jail may write to the folder", async () => {
      await jails.asAlice("mkdir -p ../main/.git");
      const args = ["--bind", "/home/alice/main", "--ro-bind", "/home/alice/main/.git"];
      const { stderr } = await jails.bash("cd ../main; touch file .git/file; mv .git moved", { args });
      expect(stderr).toContain("'.git/file': Read-only file system");
      expect(await jails.asAlice("ls -A ../main ../main/.git")).toBe(
        "../main:\n.git\nfile\n\n../main/.git:\n",
      );
      await jails.asAlice("rm -r ../main");
    });

    test("what was open where it was started from is not open in it", async () => {
      const argv = jails.commandLine(["bash", "-c", "ls /proc/self/fd /proc/self/fd/9/ /proc/self/fd/251/"]);
      const { stdout, stderr } = await daemon().run(
        ["bash", "-c", 'exec 9< / 251< /home; exec "$@"', "bash", ...argv],
        { user: "alice", cwd: "/home/alice/project", env: { PATH: "/var/bwrap:/usr/bin:/bin" } },
      );
      expect(stdout, stderr).toMatch(/^\/proc\/self\/fd:\n0\n1\n2\n3\n$/m);
      expect(stderr).toMatch(/fd\/9\/.*No such file[\s\S]*fd\/251\/.*No such file/);
    });

    test("the configuration that the next jail is made by cannot be written to", async () => {
      const owned = "/home/alice/owned";
      await jails.asAlice(
        `mkdir -p ../.config && touch policy.toml && ln -sfn /home/alice/project/policy.toml ../link.toml`,
      );
      for (const options of [
        { cwd: "/home/alice/.config" },
        { args: ["--bind", "/home/alice/.config"] },
        { args: ["--config", "policy.toml"] },
        { args: ["--config", "/home/alice/link.toml"] },
        { env: { NIX_BROKER_CONFIG: "/home/alice/project/policy.toml" } },
      ]) {
        const line = `mkdir -p nix-broker; echo '[upstream]
command = ["touch", "${owned}"]' | tee nix-broker/config.toml > policy.toml`;
        const { code, stderr } = await jails.bash(line, options);
        expect(code, JSON.stringify(options)).toBe(125);
        expect(stderr).toContain("is or contains nix-broker's configuration");
      }
      expect(await jails.bash("ls", { args: ["--ro-bind", "/home/alice/.config"] })).toMatchObject({
        code: 0,
      });
      await jails.asAlice("rm policy.toml ../link.toml");
    });

    test("another jail, its folders and its roots are out of sight", async () => {
      await jails.asAlice("mkdir -p ../other");
      const other = jails.session({ cwd: "/home/alice/other" });
      try {
        const path = await other.must(
          `nix-build -o kept -E '${simple("of-the-other")}' 2> /dev/null; touch ~/private`,
        );
        const looked = await jails.bash(
          `ls /home/alice; ls ~ /home/alice/other; nix-store --gc --print-roots; nix-store -q --roots ${path}; ls -d /proc/[0-9]* | wc -l`,
        );
        expect(looked.stdout).not.toMatch(/other|private/);
        expect(Number(looked.stdout.trim().split("\n").at(-1))).toBeLessThan(10);
        expect((await jails.bash(`nix-store --delete ${path}`)).stderr).toContain(DENIED);
      } finally {
        await other.end();
      }
    });

    test("G4: only links of the jail's own folders become roots", async () => {
      await jails.asAlice(
        `mkdir -p ../secret ../outside && ln -sfn ${theirs} ../secret/link && ln -sfn ${theirs} ../outside/link &&
         ln -sfn ../secret dir && ln -sfn /etc/passwd elsewhere && ln -sfn ${theirs}/below below && touch file &&
         ln -sfn /nix/store/${"0".repeat(32)}-missing dead && ln -sfn ${theirs} good && ln -sfn ${theirs} goodNUL`,
      );
      const home = "/home/alice/project";
      const bad = [
        "/etc/passwd",
        "/nix/var/nix/gcroots/evil",
        "good",
        `${home}/../outside/link`,
        `${home}//good`,
        `${home}/./good`,
        `${home}/good/`,
        "/home/alice/outside/link",
        `${home}/dir/link`,
        `${home}/elsewhere`,
        `${home}/below`,
        `${home}/dead`,
        `${home}/file`,
        `${home}/goodNUL`,
        `${home}/${"x".repeat(5000)}`,
        `/proc/1/root${home}/good`,
        "",
      ];
      const roots = () => jails.asRoot("readlink /nix/var/nix/gcroots/auto/* | sort");
      const before = await roots();
      const run = (links: readonly string[]) =>
        jails.run([process.execPath, join(projectRoot, "test/jail/raw.ts"), theirs, ...links], {
          args: ["--ro-bind", projectRoot, "--ro-bind", dirname(process.execPath)],
        });
      const told = await run(bad);
      expect(JSON.parse(told.stdout).links).toEqual(bad.map(() => null));
      expect(await roots()).toBe(before);
      await run([`${home}/good`]);
      expect((await roots()).trim().split("\n")).toEqual(
        [...before.trim().split("\n"), `${home}/good`].sort(),
      );
    });

    test("G7: the audit is out of reach, and has all of it", async () => {
      const looked = await jails.bash("ls -A ~ ~/.local /home/alice/.local; nix-store --gc", {
        args: ["--audit"],
      });
      expect(looked.stdout).not.toContain("nix-broker");
      expect(looked.stderr).toContain("denied: CollectGarbage: CollectGarbage is not allowed here");
      const [, folder = ""] = /nix-broker audit --store (\S+)/.exec(looked.stderr) ?? [];
      const audit = `${process.execPath} ${program.cli} audit`;
      await jails.asAlice(`${audit} verify --store ${folder}`);
      expect(await jails.asAlice(`${audit} --store ${folder} --verdict deny`)).toContain("CollectGarbage");
    });

    test("a user who cannot read the system's audit is shown that of their jails", async () => {
      await jails.bash("nix-store --gc");
      const audit = `${process.execPath} ${program.cli} audit`;
      const own = "/home/alice/.local/state/nix-broker/audit";
      await jails.asRoot("mkdir -p -m 700 /var/lib/nix-broker/audit");
      try {
        for (const command of [audit, `${audit} --store ${own}`])
          expect(await jails.asAlice(`${command} --verdict deny 2>&1`)).toContain("CollectGarbage");
        expect(await jails.asAlice(`${audit} 2>&1`)).toContain(`this is your own audit, in ${own}`);
        expect(await jails.asAlice(`${audit} --follow 2>&1`)).toContain("prints what a service records");
      } finally {
        await jails.asRoot("rm -r /var/lib/nix-broker/audit");
      }
    });
  },
  clientConfig,
);
