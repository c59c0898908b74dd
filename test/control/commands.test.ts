/** `status`, `sandboxes` and the metrics of a service with real builds in it. */
import { request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import type { SandboxDetails, SandboxSummary, StatusReport } from "../../src/service/control/messages.ts";

const version = lab.versions.at(-1)!;
let recursive: RecursiveLab;
beforeAll(async () => {
  recursive = await RecursiveLab.start(version, {
    serviceConfig: `[metrics]\nlisten = "/var/lib/nix-broker/metrics.sock"\n`,
  });
});
afterAll(() => recursive?.stop());

function cli(...args: string[]) {
  return recursive.broker!.cli(...args);
}

async function json<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await cli(...args, "--json");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout) as T;
}

/** Builds something that builds something inside, and stays until `finish`. */
async function outerBuild(
  name: string,
): Promise<{ sandbox: () => Promise<SandboxSummary>; finish: () => Promise<unknown> }> {
  const gate = `/tmp/gate-${name}`;
  await recursive.daemon.run(["sh", "-c", `mkdir -m 777 ${gate}`]);
  const inner = `derivation { name = "inner-${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo inner > $out; :" ]; }`;
  const script = `
export HOME=$PWD/home NIX_PAGER=cat PAGER=cat; mkdir -p $HOME
nix-build --no-out-link -E '${inner}' > result
echo ready > ${gate}/ready
while [ ! -e ${gate}/go ]; do sleep 0.05; done
cat result > $out
:`;
  const built = recursive.daemon.build(
    sandboxScript(script, { name, client: version, features: ["nix-broker"] }),
    {
      args: ["--option", "extra-sandbox-paths", gate],
      user: "root",
    },
  );
  const failed = built.then(
    () => undefined,
    (error: Error) => error,
  );
  let over: Error | undefined | "running" = "running";
  void failed.then((error) => {
    over = error;
  });
  await until(async () => {
    const { code } = await recursive.daemon.run(["test", "-e", `${gate}/ready`]);
    if (code !== 0 && over !== "running") throw over ?? new Error("the outer build ended early");
    return code === 0;
  });
  return {
    async sandbox() {
      const all = await json<SandboxSummary[]>("sandboxes");
      return all.find(({ derivation }) => derivation?.endsWith(`-${name}.drv`))!;
    },
    async finish() {
      await recursive.daemon.run(["touch", `${gate}/go`]);
      return built;
    },
  };
}

function scrape(
  path: string,
): Promise<{ status: number | undefined; type: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const socketPath = recursive.daemon.hostPath("/var/lib/nix-broker/metrics.sock");
    request({ socketPath, path, host: "localhost" }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode, type: response.headers["content-type"], text }),
      );
    })
      .on("error", reject)
      .end();
  });
}

test("a running build is listed with all its facts, and so is what it did", async () => {
  const outer = await outerBuild("watched");
  const sandbox = await outer.sandbox();
  expect(sandbox).toMatchObject({
    socket: null,
    profile: "build",
    parent: null,
    depth: 1,
    builds: { running: 0, total: 1 },
    refused: null,
  });
  expect(sandbox.id).toMatch(/^[a-z0-9]{32}$/);
  expect(sandbox.uid).toBeGreaterThan(0);
  expect(sandbox.bytesAdded).toBeGreaterThan(0);

  const details = await json<SandboxDetails>("sandboxes", sandbox.id.slice(0, 8));
  expect(details.viewStart).toEqual({ total: 0, paths: [] });
  expect(details.gained.paths.map((path) => path.replace(/^.{44}/, ""))).toEqual(
    expect.arrayContaining(["inner-watched", "inner-watched.drv"]),
  );
  expect(details.gained.total).toBe(details.viewPaths);
  expect(details.innerBuilds).toMatchObject([
    { ok: true, derivation: expect.stringMatching(/-inner-watched\.drv$/) },
  ]);

  const table = (await cli("sandboxes")).stdout;
  expect(table).toMatch(/^ID +BUILD, JAIL OR SOCKET +PROFILE/);
  expect(table).toMatch(new RegExp(`^${sandbox.id.slice(0, 12)} +watched +build +1 `, "m"));
  const page = (await cli("sandboxes", sandbox.id)).stdout;
  expect(page).toContain(sandbox.derivation);
  expect(page).toMatch(/^ {2}built .* inner-watched /m);

  const status = await json<StatusReport>("status");
  expect(status).toMatchObject({
    upstream: { error: null },
    sandboxes: { builds: 1, static: 1 },
    innerBuilds: { running: 0, succeeded: 1, failed: 0 },
    audit: { error: null, lost: 0 },
    linker: { error: null, sandboxes: 1, queued: 0 },
    limitsHit: {},
  });
  expect(status.linker.linked).toBeGreaterThan(1);
  expect(status.requests.forward).toBeGreaterThan(0);
  expect((await cli("status")).stdout).toMatch(/^linker +ok; 1 sandboxes, 0 queued, \d+ paths linked$/m);

  const metrics = await scrape("/metrics");
  expect(metrics).toMatchObject({
    status: 200,
    type: expect.stringMatching(/^text\/plain; version=0\.0\.4/),
  });
  expect(metrics.text).toContain('nix_broker_inner_builds_total{result="success"} 1\n');
  expect(metrics.text).toContain('nix_broker_sandboxes{profile="build"} 2\n');
  expect(metrics.text).toMatch(/^nix_broker_requests_total\{operation="AddTextToStore"|AddToStore/m);
  expect(metrics.text).toContain("nix_broker_linker_requests 0\n");
  expect((await scrape("/")).status).toBe(404);

  await outer.finish();
  await until(async () => (await cli("sandboxes", sandbox.id)).code !== 0);
  const gone = await cli("sandboxes", sandbox.id);
  expect(gone).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("no running sandbox has an id that begins with"),
  });
});

test("without the linker, status says so and what follows", async () => {
  await recursive.stopLinker();
  const { code, stdout } = await cli("status", "--json");
  expect(code).toBe(1);
  const { linker } = JSON.parse(stdout) as StatusReport;
  expect(linker).toMatchObject({
    sandboxes: null,
    error: expect.stringContaining("systemctl status nix-broker-linker"),
  });
  expect((await cli("status")).stdout).toMatch(/^linker +NOT OK: .* \(builds that opt in are refused\)$/m);
});

test("a user who may not ask is told who may; and with no service, what to do: both with 3", async () => {
  const config = "/var/lib/nix-broker/service/config.toml";
  const asked = await recursive.daemon.run([process.execPath, program.cli, "status", "--config", config], {
    user: "alice",
  });
  expect(asked).toMatchObject({ code: 3, stdout: "" });
  expect(asked.stderr).toMatch(/this user may not reach .* Ask as root or as the service's user/);
  await recursive.broker!.stop();
  for (const command of ["status", "sandboxes"]) {
    const { code, stderr } = await cli(command);
    expect({ command, code }).toEqual({ command, code: 3 });
    expect(stderr).toContain("systemctl start nix-broker");
  }
});
