import { describe, expect, test } from "vitest";
import { parseConfig } from "../../src/config/load.ts";
import { profileNamed, withOverrides } from "../../src/config/overrides.ts";
import { rootConfigText } from "../../src/config/root-config.ts";

const config = await parseConfig('[[listen]]\npath = "/run/a"\nprofile = "query"');
const storePath = "/nix/store/00000000000000000000000000000000-x";

describe("the command line goes before the file", () => {
  test("--listen adds a socket, with the profile's view unless told otherwise", () => {
    expect(withOverrides(config, { listen: "/run/b", profile: "agent" }).listen).toMatchObject([
      { path: "/run/a", profile: { name: "query" } },
      { path: "/run/b", profile: { name: "agent" }, view: "store", allowUids: ["@nixbld"] },
    ]);
    expect(
      withOverrides(config, { listen: "/run/b", view: [storePath], allow: ["*"] }).listen[1],
    ).toMatchObject({ view: [storePath], allowUids: ["*"], profile: { name: "build" } });
  });

  test("--listen with a path of the file takes its place", () => {
    expect(withOverrides(config, { listen: "/run/a", profile: "pure" }).listen).toMatchObject([
      { path: "/run/a", profile: { name: "pure" } },
    ]);
  });

  test("--upstream takes the place of socket and command", async () => {
    const remote = await parseConfig('[upstream]\ncommand = ["ssh", "x"]');
    expect(withOverrides(remote, { upstream: "/s" }).upstream).toMatchObject({
      socket: "/s",
      command: undefined,
    });
  });

  test("unknown profiles and views are named with the option", () => {
    expect(() => profileNamed(config, "bild")).toThrow(
      '--profile: there is no profile "bild"; did you mean "build"?',
    );
    expect(() => withOverrides(config, { listen: "/b", view: ["/nix/store/x"] })).toThrow(
      "--view: expected empty, store, build, or store paths (/nix/store/HASH-NAME), but it is /nix/store/x",
    );
  });
});

test("the root programs' file has one key=value a line, nothing else", async () => {
  const text = rootConfigText(
    await parseConfig('[hooks]\nnext_pre_build_hook = "/etc/my hook"\n[runtime]\nuser = "broker"'),
  );
  expect(text).toBe(
    [
      "store_dir=/nix/store",
      "upstream_socket=/nix/var/nix/daemon-socket/socket",
      "nix_store=nix-store",
      "runtime_dir=/run/nix-broker",
      "state_dir=/var/lib/nix-broker",
      "gcroots_dir=/nix/var/nix/gcroots/nix-broker",
      "service_user=broker",
      "next_pre_build_hook=/etc/my hook",
      "next_post_build_hook=",
      "",
    ].join("\n"),
  );
});
