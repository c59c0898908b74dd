/** Why bwrap could not make a jail, as far as the machine's settings tell. */
import { readFileSync } from "node:fs";

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

/** @param read the value of a setting by its name below /proc/sys; undefined if this kernel does not have it */
export function troubleWith(read: (name: string) => string | undefined): string | undefined {
  return settings.find(({ name, isTrouble }) => isTrouble(read(name) ?? ""))?.advice;
}

/** As `troubleWith`, of this machine. */
export function troubleHere(): string | undefined {
  return troubleWith((name) => {
    try {
      return readFileSync(`/proc/sys/${name}`, "utf8").trim();
    } catch {
      return undefined;
    }
  });
}
