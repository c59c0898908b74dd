/** The settings of the machine's nix-daemon: from nix.conf and what it includes, and for the rest what Nix itself says. */
import { execFileSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

const MAX_INCLUDES = 64;

/** Old names that every version still accepts (src/libstore/globals.hh in the Nix tree). */
const aliases: Readonly<Record<string, string>> = {
  "build-use-chroot": "sandbox",
  "build-use-sandbox": "sandbox",
  "build-chroot-dirs": "sandbox-paths",
  "build-sandbox-paths": "sandbox-paths",
};

export class NixSettings {
  readonly file: string;
  /** Files that are named but cannot be read. */
  readonly unreadable: string[] = [];
  /** Files that have to be there, and are not. */
  readonly missing: string[] = [];
  /** When one of the files was last changed, in milliseconds since 1970; 0 if there is none. */
  changed = 0;
  private readonly values = new Map<string, string>();
  private readonly added = new Map<string, string>();
  private readonly defaults: ReadonlyMap<string, string>;
  private includes = 0;

  constructor(folder = process.env.NIX_CONF_DIR ?? "/etc/nix", defaults = nixDefaults()) {
    this.file = `${folder}/nix.conf`;
    this.defaults = defaults;
    this.read(this.file, true);
  }

  /** The value of a setting; `fallback` if neither the files nor Nix have one. */
  get(name: string, fallback = ""): string {
    const value = this.values.get(name) ?? this.defaults.get(name) ?? fallback;
    return [value, this.added.get(name) ?? ""].join(" ").trim();
  }

  /** Whether there is a nix.conf, or a Nix that told its settings. */
  get present(): boolean {
    return this.changed > 0 || this.unreadable.length > 0 || this.defaults.size > 0;
  }

  /** Whether the files or Nix itself say what a setting is. */
  knows(name: string): boolean {
    return this.values.has(name) || this.added.has(name) || this.defaults.has(name);
  }

  list(name: string, fallback = ""): string[] {
    return this.get(name, fallback).split(" ").filter(Boolean);
  }

  private read(path: string, mayBeMissing: boolean): void {
    let text: string;
    try {
      text = readFileSync(path, "utf8");
      this.changed = Math.max(this.changed, statSync(path).mtimeMs);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") this.unreadable.push(path);
      else if (!mayBeMissing) this.missing.push(path);
      return;
    }
    for (const line of text.split("\n")) this.take(line, path);
  }

  private take(line: string, path: string): void {
    const [name = "", second = "", ...rest] = line
      .replace(/#.*/, "")
      .split(/[ \t\r]+/)
      .filter(Boolean);
    if (name === "include" || name === "!include") {
      if (second !== "" && this.includes++ < MAX_INCLUDES)
        this.read(resolve(dirname(path), second), name === "!include");
    } else if (second === "=") {
      const value = rest.join(" ");
      const plain = aliases[name] ?? name;
      if (plain.startsWith("extra-")) {
        const key = plain.slice("extra-".length);
        this.added.set(key, `${this.added.get(key) ?? ""} ${value}`);
      } else {
        this.values.set(plain, value);
        // Additions before a line that sets it again are lost, as in Nix.
        this.added.delete(plain);
      }
    }
  }
}

/** What Nix itself reports: its defaults on this machine. Empty if there is no `nix` to run. */
function nixDefaults(): ReadonlyMap<string, string> {
  const env = {
    PATH: process.env.PATH ?? "/usr/bin:/bin",
    HOME: "/nonexistent",
    NIX_CONFIG: "experimental-features = nix-command",
  };
  // The second is the name up to 2.19.
  for (const command of [["config", "show"], ["show-config"]])
    try {
      const text = execFileSync("nix", [...command, "--json"], {
        env,
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
        timeout: 10_000,
      });
      return defaultsIn(JSON.parse(text));
    } catch {
      // Does not exist, or is another version: the next one may work.
    }
  return new Map();
}

function defaultsIn(shown: unknown): Map<string, string> {
  const defaults = new Map<string, string>();
  if (typeof shown !== "object" || shown === null) return defaults;
  for (const [name, setting] of Object.entries(shown)) {
    const value = settingText(setting);
    if (value !== undefined) defaults.set(name, value);
  }
  return defaults;
}

function settingText(setting: unknown): string | undefined {
  if (typeof setting !== "object" || setting === null || !("value" in setting)) return undefined;
  const { value } = setting;
  if (Array.isArray(value)) return value.join(" ");
  return ["string", "number", "boolean"].includes(typeof value) ? String(value) : undefined;
}
