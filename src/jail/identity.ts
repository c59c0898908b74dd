/**
 * Which file or folder something is, by any name. Between the look at a folder's path and its mounting somebody who can write
 * to the folder above it, such as another jail, could put a link to another one in its place.
 */
import { closeSync, fstatSync, openSync, readFileSync, readlinkSync } from "node:fs";

/** Of <fcntl.h>: reads and writes nothing, and waits for nobody. */
const O_PATH = 0o10000000;

/** A file system, and an inode of it. */
export type Identity = string;

function identityOf({ dev, ino }: { readonly dev: bigint; readonly ino: bigint }): Identity {
  return `${dev}:${ino}`;
}

/** What a path leads to now, and its real path. @throws the system's error if it leads nowhere */
export function lookAt(path: string): { readonly source: string; readonly identity: Identity } {
  const opened = openSync(path, O_PATH);
  try {
    return {
      source: readlinkSync(`/proc/self/fd/${opened}`),
      identity: identityOf(fstatSync(opened, { bigint: true })),
    };
  } finally {
    closeSync(opened);
  }
}

interface Placed {
  /** Where the jail sees it. */
  readonly target: string;
  readonly identity: Identity;
}

/**
 * Which of the files and folders of a jail is another one than it should be, or was mounted elsewhere.
 * @param bwrap the process that was started, when all is mounted
 * @param placeInside where a path of the jail is, when its own links are followed
 * @throws the system's error when that cannot be found out
 */
export function exchanged<Folder extends Placed>(
  bwrap: number,
  folders: readonly Folder[],
  placeInside: (target: string) => string,
): Folder | undefined {
  const children = readFileSync(`/proc/${bwrap}/task/${bwrap}/children`, "utf8");
  const inside = `/proc/${children.trim().split(" ")[0]}`;
  const places = mountPoints(readFileSync(`${inside}/mountinfo`, "utf8"));
  return folders.find(({ target, identity }) => {
    const there = placeOf(`${inside}/root${target}`);
    // A link that is there for a moment could have it mounted elsewhere, and then lead from here to what was judged, outside even.
    return there?.identity !== identity || places.get(there.mount) !== placeInside(target);
  });
}

/** Where mounts are, by the kernel's numbers of them, of which no other namespace has the same. */
function mountPoints(mountInfo: string): ReadonlyMap<string, string> {
  return new Map(
    mountInfo.split("\n").map((line) => {
      const [mount = "", , , , point = ""] = line.split(" ");
      return [
        mount,
        point.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
      ];
    }),
  );
}

/** What a path leads to, and the kernel's number of the mount that it is in; undefined if it leads nowhere. */
function placeOf(path: string): { readonly identity: Identity; readonly mount: string } | undefined {
  let opened: number;
  try {
    opened = openSync(path, O_PATH);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  try {
    const [, mount = ""] =
      /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${opened}`, "utf8")) ?? [];
    return { identity: identityOf(fstatSync(opened, { bigint: true })), mount };
  } finally {
    closeSync(opened);
  }
}
