import { expect, test } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { type HealthFacts, statusLine } from "../../src/service/health.ts";
import { OneAtATime, takenUp } from "../../src/service/reload.ts";

const well: HealthFacts = {
  upstream: null,
  nixVersion: "2.34.1",
  linker: null,
  builds: 2,
  sockets: [{ path: "/a", error: null }],
  reload: null,
};

test("the status line says that upstream and linker are reached, and what is served", () => {
  expect(statusLine(well)).toBe(
    "upstream reached (Nix 2.34.1); linker reached; 2 sandboxes of builds, 1 static socket",
  );
  expect(statusLine({ ...well, nixVersion: undefined, linker: undefined, builds: 1, sockets: [] })).toBe(
    "upstream reached; 1 sandbox of builds, 0 static sockets",
  );
});

test("the status line begins with what is wrong", () => {
  const wrong = {
    ...well,
    upstream: "nobody is there",
    linker: "it is gone",
    sockets: [...well.sockets, { path: "/b", error: "/b is taken" }],
    reload: "line 1: no",
  };
  expect(statusLine(wrong)).toBe(
    "upstream NOT reached: nobody is there; linker NOT reached: it is gone; /b NOT open: /b is taken; " +
      "configuration NOT taken up: line 1: no; 2 sandboxes of builds, 1 static socket",
  );
});

test("a reload takes up sockets, profiles and the log's level, and names the tables that need a restart", async () => {
  const before = await parseConfig("");
  const read = await parseConfig(`
    [[listen]]
    path = "/run/nix-broker/shared/x/socket"
    profile = "mine"
    [profiles.mine]
    extends = "pure"
    [hooks]
    profile = "pure"
    build_users = 3
    [runtime]
    admin_group = "wheel"
    [fetch]
    private_hosts = ["git.corp.example"]
    [log]
    level = "warn"
  `);
  const { config, later } = takenUp(before, read);
  expect(config.listen).toEqual(read.listen);
  expect(config.profiles.has("mine")).toBe(true);
  expect(config.hooks.profile.name).toBe("pure");
  expect(config.log.level).toBe("warn");
  expect(config.hooks.buildUsers).toBeUndefined();
  expect(config.runtime.adminGroup).toBe("");
  expect(config.fetch.privateHosts).toEqual([]);
  expect(later).toEqual(["runtime", "hooks", "fetch"]);
  expect(takenUp(before, { ...before, listen: read.listen }).later).toEqual([]);
});

test("who asks for a reload while one runs gets one that begins afterwards", async () => {
  const gates: PromiseWithResolvers<void>[] = [];
  const reload = new OneAtATime(() => {
    const gate = Promise.withResolvers<void>();
    gates.push(gate);
    return gate.promise;
  });
  const first = reload.run();
  await Promise.resolve();
  expect(gates).toHaveLength(1);
  const others = [reload.run(), reload.run()];
  expect(gates).toHaveLength(1);
  gates[0]?.reject(new Error("no"));
  await expect(first).rejects.toThrow("no");
  await Promise.resolve();
  expect(gates).toHaveLength(2);
  gates[1]?.resolve();
  await Promise.all(others);
});
