/** The documentation as it is installed: the pages of docs/, with README.md and CHANGELOG.md beside them. */
import { cpSync, globSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const projectRoot = join(import.meta.dirname, "..");

/** @param prefix where the library is installed that the examples import */
export function copyDocuments(folder: string, prefix: string): void {
  cpSync(join(projectRoot, "docs"), folder, { recursive: true });
  for (const name of globSync("examples/**/*.nix", { cwd: folder })) {
    const path = join(folder, name);
    writeFileSync(
      path,
      readFileSync(path, "utf8").replaceAll(/(?:\.\.\/){2,3}lib /g, `${prefix}/share/nix-broker/lib `),
    );
  }
  for (const name of ["README.md", "CHANGELOG.md"])
    writeFileSync(join(folder, name), besideDocs(readFileSync(join(projectRoot, name), "utf8")));
}

/** A page of the project's folder, for the folder of the other pages; what is not installed is no link there. */
function besideDocs(page: string): string {
  return page.replaceAll("](docs/", "](").replaceAll(/\[([^\]]*)\]\(CONTRIBUTING\.md\)/g, "$1");
}
