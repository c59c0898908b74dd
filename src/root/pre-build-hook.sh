#!/bin/sh
# Nix's pre-build-hook. Builds that do not name nix-broker pay for this shell and one look at their .drv, or no shell where
# hook-prefilter.c was compiled, which runs this script for the others; they go to the real program. A hook that fails aborts
# everything its client builds, so ours does not, even if its Node is missing or killed; the next one may.
path=$PATH
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"

# As grep: 1 is "not found". A file that is none may have no end.
mentions() {
  [ -f "$1" ] || return 2
  LC_ALL=C grep -qF "$2" "$1"
}

# 1 when the derivation does not name us. Starting grep takes longer than all else here, so where sh is bash, as on NixOS, bash
# reads the .drv itself, unless that is long. It reads to the end then, which `read` says is a failure.
names_us() {
  text=
  if [ -n "$BASH_VERSION" ] && [ -f "$1" ] && ! IFS= read -r -d '' -n 16384 text <"$1" && [ -n "$text" ]; then
    case $text in *nix-broker*) return 0 ;; *) return 1 ;; esac
  fi
  mentions "$1" nix-broker
}

# Maps an empty folder onto the daemon's, for a build that may have opted in and gets no sandbox: with no mapping at all its
# clients would find no daemon, use a store of their own, and the build could succeed with paths that nobody has.
map_no_daemon() {
  mentions "$1" requiredSystemFeatures
  [ $? -ne 1 ] || return 0
  folder=$runtime/no-daemon
  # The linker has made them, unless it has never run.
  [ -f "$folder/etc/nix.conf" ] && [ -d "$folder/socket.d" ] ||
    (umask 022 && mkdir -p "$folder/etc" "$folder/socket.d" && echo "store = daemon" >"$folder/etc/nix.conf") || return 1
  printf 'extra-sandbox-paths\n/nix/var/nix/daemon-socket=%s\n/etc/nix=%s\n\n' "$folder/socket.d" "$folder/etc"
}

next=
config=${NIX_BROKER_ROOT_CONFIG:-/etc/nix-broker/root.conf}
runtime=/run/nix-broker
# -O: a file of somebody else's is not believed.
if [ -O "$config" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      runtime_dir=*) runtime=${line#*=} ;;
      next_pre_build_hook=*) next=${line#*=} ;;
    esac
  done <"$config"
fi

# A remote builder runs the hook too, and has no .drv.
if [ -e "$1" ]; then
  names_us "$1"
  # 1 is "not found"; where grep itself is missing or fails, the real program looks.
  if [ $? -ne 1 ]; then
    # All that it printed counts, or nothing: it may be killed at any time.
    if mapping=$("${0%/*}/nix-broker-root" pre-build-hook "$@"); then
      [ -z "$mapping" ] || printf '%s\n\n' "$mapping"
    else
      echo "nix-broker: the pre-build hook ended with $?; this build gets no sandbox" >&2
      # Without a chroot there is nothing to map into, and Nix would refuse the lines.
      if [ -n "$2" ] && ! map_no_daemon "$1"; then
        echo "nix-broker: $runtime/no-daemon cannot be made, so this build is refused: without it, it could use a store of its own" >&2
        exit 1
      fi
    fi
  fi
fi

PATH=$path
[ -z "$next" ] || exec "$next" "$@"
exit 0
