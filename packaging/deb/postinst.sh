#!/bin/sh
set -e

set_up=/usr/lib/nix-broker/set-up
units='nix-broker-fetch.socket nix-broker-linker.service nix-broker.service'

case "$1" in
  configure | abort-upgrade | abort-deconfigure | abort-remove | triggered)
    "$set_up" configuration
    "$set_up" account
    for unit in $units; do
      deb-systemd-helper unmask "$unit" >/dev/null || true
      if deb-systemd-helper --quiet was-enabled "$unit"; then
        deb-systemd-helper enable "$unit" >/dev/null || true
      else
        deb-systemd-helper update-state "$unit" >/dev/null || true
      fi
    done
    if [ -d /run/systemd/system ]; then
      systemctl --system daemon-reload >/dev/null || true
      if [ "$1" = configure ] && [ -n "$2" ] && systemctl is-active --quiet nix-broker.service; then
        "$set_up" restart || true
      fi
      # Without Nix, the linker has failed too often to be started again.
      # shellcheck disable=SC2086 # They are several.
      systemctl reset-failed $units 2>/dev/null || true
      # shellcheck disable=SC2086
      deb-systemd-invoke start $units >/dev/null || true
    fi
    # Only now, when there is what serves them.
    "$set_up" connect
    if [ -d /run/systemd/system ]; then "$set_up" report; fi
    ;;
  *)
    echo "postinst called with unknown argument \`$1'" >&2
    exit 1
    ;;
esac
