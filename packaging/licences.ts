/** The licences of what is in a package: of Node, and of the npm packages that are bundled or lie beside. */
import { copyFileSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import packageLock from "../package-lock.json" with { type: "json" };
import { write } from "./tree.ts";

const projectRoot = join(import.meta.dirname, "..");

interface Locked {
  readonly dev?: boolean;
  readonly license?: string;
}

/** @param node the folder of Node's package */
export function addLicences(folder: string, node: string): void {
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(node, "LICENSE"), join(folder, "node"));
  const packages: Readonly<Record<string, Locked>> = packageLock.packages;
  for (const [path, { dev, license }] of Object.entries(packages)) {
    const installed = join(projectRoot, path);
    if (path === "" || dev || !existsSync(installed)) continue;
    const name = path.replace(/^.*node_modules\//, "").replace("/", "-");
    const text = readdirSync(installed).find((file) => /^licen[cs]e/i.test(file));
    if (text === undefined)
      write(join(folder, name), `${license ?? "unknown"}; its package has no text of it.\n`);
    else copyFileSync(join(installed, text), join(folder, name));
  }
}
