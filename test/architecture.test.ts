import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { folderGraph, type SourceFile, sourceFiles } from "../scripts/imports.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** Which folders a folder of src/ may import: the layers of docs/architecture.md, top to bottom. */
const mayImport: Readonly<Record<string, readonly string[]>> = {
  // Of the service it imports types alone; what runs in the browser besides is in audit/, and pure.
  page: ["service", "audit"],
  cli: ["jail", "service", "config", "sandbox", "audit", "host", "policy", "protocol", "store"],
  jail: ["service", "contract", "config", "sandbox", "audit", "host", "policy"],
  // What it shares with root's programs is contract/; neither imports the other.
  service: ["contract", "config", "sandbox", "audit", "host", "policy", "protocol", "store"],
  sandbox: ["contract", "audit", "host", "policy", "protocol", "store"],
  config: ["policy", "protocol", "store"],
  audit: ["host", "protocol", "store"],
  host: ["protocol", "store"],
  // A program of its own; the service tells it what contract/ says.
  fetcher: ["contract", "policy", "store"],
  policy: ["contract", "protocol", "store"],
  root: ["contract", "protocol", "store"],
  contract: ["protocol", "store"],
  protocol: ["store"],
  store: [],
};

/** Folders without I/O: their files may be given bytes, and give bytes, no more. */
const pureFolders = ["store", "protocol", "policy"];
const pureBuiltins = ["node:crypto", "node:buffer", "node:util", "node:zlib"];

const files = sourceFiles();
const byPath = new Map(files.map((file) => [file.path, file]));
const inFolder = (folder: string): SourceFile[] => files.filter((file) => file.folder === folder);

describe("layers", () => {
  test("the graph was read: known imports are seen", () => {
    expect(byPath.get("src/policy/profile.ts")?.files).toContain("src/policy/limits.ts");
    expect(byPath.get("src/policy/profile.ts")?.files).toContain("src/store/store-path.ts");
    expect(byPath.get("src/config/schema.ts")?.packages).toEqual(["zod/mini"]);
  });

  test("imports in src/ go downward only", () => {
    for (const [folder, imported] of folderGraph(files)) {
      expect(
        mayImport,
        `src/${folder}/ has no layer: give it one here and in docs/architecture.md`,
      ).toHaveProperty(folder);
      for (const other of imported) {
        const culprits = inFolder(folder)
          .filter((file) => file.files.some((path) => path.startsWith(`src/${other}/`) || path === other))
          .map((file) => file.path);
        expect(mayImport[folder], `${culprits.join(", ")} must not import ${other}/`).toContain(other);
      }
    }
  });

  test("every imported file exists, under its own name", () => {
    for (const file of files) {
      for (const imported of file.files) {
        expect(existsSync(join(root, imported)), `${file.path} imports ${imported}`).toBe(true);
      }
    }
  });

  test.each(pureFolders)("src/%s/ does no I/O and uses no package", (folder) => {
    for (const file of inFolder(folder)) {
      for (const name of file.packages) {
        expect(pureBuiltins, `${file.path} must not import ${name}`).toContain(name);
      }
    }
  });

  test("no npm package runs as root: src/root/ reaches built-ins, contract/, protocol/ and store/ alone", () => {
    const reached = new Set<string>();
    const visit = (path: string): void => {
      if (reached.has(path)) return;
      reached.add(path);
      const file = byPath.get(path);
      expect(file, `${path} is reached from src/root/`).toBeDefined();
      for (const name of file?.packages ?? []) {
        expect(name.startsWith("node:") && builtinModules.includes(name.slice(5)), `${path}: ${name}`).toBe(
          true,
        );
      }
      file?.files.forEach(visit);
    };
    for (const file of inFolder("root")) visit(file.path);
    expect(reached.size).toBeGreaterThan(inFolder("root").length);
    for (const path of reached) expect(path).toMatch(/^src\/(?:root|contract|protocol|store)\//);
  });

  test("nothing outside of test/ imports test/", () => {
    const importers = ["src", "lab", "scripts", "bench", "soak"]
      .flatMap((folder) =>
        readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).map(
          (path) => `${folder}/${path}`,
        ),
      )
      .filter((path) => /\.m?[jt]sx?$/.test(path));
    expect(importers.length).toBeGreaterThan(100);
    const found = importers.filter((path) =>
      /\bfrom\s*["'](?:\.\.\/)+test\//.test(readFileSync(join(root, path), "utf8")),
    );
    expect(found).toEqual([]);
  });

  test("the page imports types, and no code but what runs in a browser too", () => {
    const code = inFolder("page").flatMap(({ path }) =>
      [
        ...readFileSync(join(root, path), "utf8").matchAll(/^import (?!type )[^;]*? from "\.\.\/([^"]+)";/gm),
      ].map((match) => match[1]),
    );
    expect(new Set(code)).toEqual(new Set(["audit/escape.ts", "audit/failures.ts", "audit/figures.ts"]));
    for (const path of code) expect(byPath.get(`src/${path}`)?.packages).toEqual([]);
  });

  test("node-ipc is used in one file of the service", () => {
    const users = files.filter((file) => file.packages.includes("node-ipc")).map((file) => file.folder);
    expect(users.every((folder) => folder === "service")).toBe(true);
    expect(users.length).toBeLessThanOrEqual(1);
  });
});

describe("docs/architecture.md", () => {
  const page = (): string => readFileSync(join(root, "docs/architecture.md"), "utf8");

  test("tells what lives in every folder of src/", () => {
    const folders = readdirSync(join(root, "src"), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
    const told = [...page().matchAll(/^\| `src\/([a-z-]+)\/` \| (.{20,}) \|$/gm)].map((match) => match[1]);
    expect(new Set(told)).toEqual(new Set(folders));
  });
});

describe("tracked files", () => {
  const tracked = execFileSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8" })
    .split("\0")
    .filter((path) => path !== "" && existsSync(join(root, path)));

  const linesOf = (path: string): string[] => {
    try {
      return readFileSync(path, "utf8").split("\n");
    } catch {
      return [];
    }
  };

  /** Hosts that this machine fetches packages from. Well-known ones are put together here, not written down. */
  const packageHosts = (): string[] => {
    const aptFolder = "/etc/apt/sources.list.d";
    const aptFiles = existsSync(aptFolder) ? readdirSync(aptFolder).map((name) => join(aptFolder, name)) : [];
    const lines = [
      ...[join(homedir(), ".npmrc"), "/etc/npmrc"]
        .flatMap(linesOf)
        .filter((line) => line.includes("registry")),
      ...["/etc/apt/sources.list", ...aptFiles]
        .flatMap(linesOf)
        .filter((line) => /^(?:deb|uris)/i.test(line)),
      process.env.npm_config_registry ?? "",
    ];
    const configured = lines.flatMap((line) =>
      [...line.matchAll(/\bhttps?:\/\/(?:[^/\s@]*@)?([a-z0-9.-]+)/gi)].map((match) =>
        match[1]!.toLowerCase(),
      ),
    );
    const known = [
      ["registry", "npmjs", "org"],
      ["registry", "yarnpkg", "com"],
      ["deb", "debian", "org"],
      ["security", "debian", "org"],
      ["snapshot", "debian", "org"],
    ].map((parts) => parts.join("."));
    return [...known, ...configured].filter((host) => host.includes(".") && !/^(?:127\.|0\.)/.test(host));
  };

  test("name no package registry and no mirror", () => {
    const hosts = packageHosts();
    const found = tracked.flatMap((path) => {
      const text = readFileSync(join(root, path), "latin1").toLowerCase();
      return hosts.filter((host) => text.includes(host)).map((host) => `${path}: ${host}`);
    });
    expect(found).toEqual([]);
  });
});
