#!/bin/sh
# Nix's pre-build-hook. Builds that do not name nix-broker pay for this shell and one look at their .drv; the others go to the
# real program. A hook that fails aborts everything its client builds, so ours never does, even if its Node is missing or
# killed; the next one may.
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"

# 1 when the derivation does not name us. Starting grep takes longer than all else here, so where sh is bash, as on NixOS, bash
# reads the .drv itself, unless that is long. It reads to the end then, which `read` says is a failure.
names_us() {
  text=
  if [ -n "$BASH_VERSION" ] && ! IFS= read -r -d '' -n 16384 text <"$1" && [ -n "$text" ]; then
    case $text in *nix-broker*) return 0 ;; *) return 1 ;; esac
  fi
  LC_ALL=C grep -qF nix-broker "$1"
}

next=
config=${NIX_BROKER_ROOT_CONFIG:-/etc/nix-broker/root.conf}
# A remote builder runs the hook too, and has no .drv.
if [ -e "$1" ]; then
  names_us "$1"
  # 1 is "not found"; where grep itself is missing or fails, the real program looks.
  [ $? -eq 1 ] || "${0%/*}/nix-broker-root" pre-build-hook "$@" ||
    echo "nix-broker: the pre-build hook ended with $?; this build gets no sandbox" >&2
fi

# -O: a file of somebody else's is not believed.
if [ -O "$config" ]; then
  while IFS='=' read -r key value; do
    case $key in next_pre_build_hook) next=$value ;; esac
  done <"$config"
  [ -z "$next" ] || exec "$next" "$@"
fi
exit 0
