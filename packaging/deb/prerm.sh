#!/bin/sh
set -e

case "$1" in
  remove)
    # Before the programs go that they name: with a hook that is missing, every build fails.
    /usr/lib/nix-broker/set-up disconnect
    if [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ]; then
      deb-systemd-invoke stop nix-broker.socket nix-broker.service nix-broker-linker.service nix-broker-fetch.socket \
        >/dev/null || true
    fi
    ;;
  # The old version goes on until the new one is there: its files are replaced under it, and it needs them no more.
  upgrade | deconfigure | failed-upgrade) ;;
  *)
    echo "prerm called with unknown argument \`$1'" >&2
    exit 1
    ;;
esac
