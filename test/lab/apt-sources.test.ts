import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import {
  debianArchives,
  machineArchives,
  parseDeb822,
  parseOneLine,
  sourcesFile,
} from "../../lab/apt-sources.ts";

test("one-line sources: options, comments, sources of source packages", () => {
  const text = `
# deb http://old.test/debian sid main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian bookworm main contrib # the usual
deb-src http://mirror.test/debian bookworm main
deb http://other.test/repo stable-of-other main`;
  expect(parseOneLine(text)).toEqual([
    {
      uri: "http://mirror.test/debian",
      suites: ["bookworm"],
      components: ["main", "contrib"],
      options: new Map([["Signed-By", "/k.gpg"]]),
    },
    { uri: "http://other.test/repo", suites: ["stable-of-other"], components: ["main"], options: new Map() },
  ]);
});

test("deb822 sources: several URIs and suites, a key in place, what is switched off", () => {
  const key = "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc";
  const text = `# comment
Types: deb deb-src
URIs: http://a.test/debian http://b.test/debian
# another
Suites: trixie trixie-updates
Components: main
Signed-By:${key}

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: sid
Components: main

Types: deb-src
URIs: http://src.test/debian
Suites: sid
Components: main
`;
  const archives = parseDeb822(text);
  expect(archives.map(({ uri }) => uri)).toEqual(["http://a.test/debian", "http://b.test/debian"]);
  expect(archives[0]).toMatchObject({ suites: ["trixie", "trixie-updates"], components: ["main"] });
  expect(archives[0]?.options.get("Signed-By")).toBe(key.trimStart());
});

test("archives of Debian are told from others, and asked for another suite with the same key", () => {
  const folder = mkdtempSync(join(tmpdir(), "apt-sources-"));
  mkdirSync(join(folder, "sources.list.d"));
  writeFileSync(join(folder, "sources.list"), "deb http://vendor.test/apt vendor main\n");
  writeFileSync(
    join(folder, "sources.list.d", "debian.sources"),
    "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\nSigned-By: /k.gpg\n",
  );
  writeFileSync(join(folder, "sources.list.d", "debian.sources.save"), "Types: deb\nURIs: http://x.test\n");
  const [archive, ...others] = debianArchives(machineArchives(folder));
  rmSync(folder, { recursive: true });
  expect(others).toEqual([]);
  if (archive === undefined) throw new Error("No archive was found.");
  expect(sourcesFile(archive, "sid")).toBe(
    "Types: deb\nURIs: http://mirror.test/debian\nSuites: sid\nComponents: main\nTargets: Packages\nSigned-By: /k.gpg\n",
  );
});
