import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadRootConfig, parseRootConfig, serviceAccount } from "../../src/contract/root-config.ts";

function parse(text: string) {
  return parseRootConfig(text, "root.conf");
}

describe("parseRootConfig", () => {
  test("everything has a default", () => {
    const config = parse("");
    expect(config.storeDir).toBe("/nix/store");
    expect(config.storeReal).toBe("/nix/store");
    expect(config.runtimeDir).toBe("/run/nix-broker");
    expect(config.gcrootsDir).toBe("/nix/var/nix/gcroots/nix-broker");
    expect(config.secretKeyFiles).toEqual([]);
    expect(config.hookWait).toBe(5000);
    expect(config.endGrace).toBe(600_000);
  });

  test("values may hold '='; comments, empty lines and empty values are fine", () => {
    const config = parse(
      "# mine\n\nstore_dir=/gnu/store\nnext_pre_build_hook=/a=b\nnix_store=\nsecret_key_files=/a /b\n",
    );
    expect(config.storeDir).toBe("/gnu/store");
    expect(config.storeReal).toBe("/gnu/store");
    expect(config.nextPreBuildHook).toBe("/a=b");
    expect(config.secretKeyFiles).toEqual(["/a", "/b"]);
  });

  test.each([
    ["store_dir = /nix/store", 'expected key=value, with no spaces around "="'],
    ["store_dir=/nix/store ", "expected key=value"],
    ["store_dirs=/nix/store", 'unknown key "store_dirs"'],
    ["max_queue=1\nmax_queue=2", '"max_queue" is there twice'],
    ["runtime_dir=run", "must be an absolute path"],
    ["runtime_dir=/run/../etc", "must be an absolute path"],
    ["runtime_dir=/run/a=b", "must be an absolute path"],
    ["hook_wait_ms=soon", "must be a whole number"],
    ["max_bytes=-1", "must be a whole number"],
  ])("%j is refused", (text, message) => {
    expect(() => parse(text)).toThrow(message);
  });
});

describe("loadRootConfig", () => {
  let folder: string;
  let file: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "root-config-"));
    file = join(folder, "root.conf");
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("reads a file of root's", () => {
    writeFileSync(file, "service_user=7:8\n", { mode: 0o644 });
    expect(loadRootConfig(file).serviceUser).toBe("7:8");
  });

  test("refuses a file that others may write", () => {
    chmodSync(file, 0o664);
    expect(() => loadRootConfig(file)).toThrow("is writable by group or others");
    chmodSync(file, 0o644);
  });

  test("refuses a file of another user", () => {
    chownSync(file, 1234, 0);
    expect(() => loadRootConfig(file)).toThrow("belongs to user 1234");
    chownSync(file, 0, 0);
  });

  test("refuses a file in a folder that others may write", () => {
    chmodSync(folder, 0o777);
    expect(() => loadRootConfig(file)).toThrow("is writable by group or others");
    chmodSync(folder, 0o700);
  });

  test("follows no symlink, and takes no folder", () => {
    symlinkSync(file, join(folder, "link"));
    expect(() => loadRootConfig(join(folder, "link"))).toThrow("ELOOP");
    mkdirSync(join(folder, "folder"));
    expect(() => loadRootConfig(join(folder, "folder"))).toThrow("is not a regular file");
  });

  test("a file that was named must exist", () => {
    expect(() => loadRootConfig(join(folder, "none"))).toThrow("does not exist");
  });
});

describe("serviceAccount", () => {
  test("by name and by numbers", () => {
    expect(serviceAccount("root")).toEqual({ uid: 0, gid: 0 });
    expect(serviceAccount("12:34")).toEqual({ uid: 12, gid: 34 });
  });
  test("an unknown user is named", () => {
    expect(() => serviceAccount("no-such-user")).toThrow('there is no user "no-such-user"');
  });
});
