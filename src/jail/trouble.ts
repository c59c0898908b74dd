/** Why bwrap could not make a jail, as far as the machine's settings tell. */
import { existsSync, readFileSync } from "node:fs";

interface Setting {
  /** Below /proc/sys. */
  readonly name: string;
  readonly isTrouble: (value: string) => boolean;
  readonly advice: string;
}

const settings: readonly Setting[] = [
  {
    name: "kernel/unprivileged_userns_clone",
    isTrouble: (value) => value === "0",
    advice:
      "this machine does not let ordinary users make user namespaces, which bubblewrap needs: as root, `sysctl -w kernel.unprivileged_userns_clone=1` (and in /etc/sysctl.d, to keep it)",
  },
  {
    name: "user/max_user_namespaces",
    isTrouble: (value) => value === "0",
    advice:
      "this machine allows no user namespaces, which bubblewrap needs: as root, `sysctl -w user.max_user_namespaces=10000` (and in /etc/sysctl.d, to keep it)",
  },
  {
    name: "kernel/apparmor_restrict_unprivileged_userns",
    isTrouble: (value) => value === "1",
    advice:
      "AppArmor keeps programs without a profile from using user namespaces: give bwrap one that has `userns,` (Ubuntu's package apparmor-profiles has bwrap-userns-restrict), or, as root, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
  },
];

const inContainer =
  "this is a container, and most keep programs in them from making namespaces or from mounting /proc: start the jail outside; or start the container with `--security-opt seccomp=unconfined` and `--security-opt systempaths=unconfined` (docker) or `--security-opt unmask=ALL` (podman), which weakens it";

/**
 * @param read the value of a setting by its name below /proc/sys; undefined if this kernel does not have it
 * @param isContainer whether this runs in a container
 */
export function troubleWith(
  read: (name: string) => string | undefined,
  isContainer: boolean,
): string | undefined {
  const setting = settings.find(({ name, isTrouble }) => isTrouble(read(name) ?? ""));
  return setting?.advice ?? (isContainer ? inContainer : undefined);
}

/** Files that docker and podman make, and the variable that podman and systemd-nspawn set. */
function isContainer(): boolean {
  return ["/.dockerenv", "/run/.containerenv"].some(existsSync) || process.env.container !== undefined;
}

/** As `troubleWith`, of this machine. */
export function troubleHere(): string | undefined {
  return troubleWith((name) => {
    try {
      return readFileSync(`/proc/sys/${name}`, "utf8").trim();
    } catch {
      return undefined;
    }
  }, isContainer());
}
