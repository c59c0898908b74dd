#!/bin/sh
set -e

#INCLUDE remains.sh

forget_units() {
  if command -v deb-systemd-helper >/dev/null; then
    for unit in nix-broker.service nix-broker-linker.service nix-broker-fetch.socket nix-broker.socket; do
      deb-systemd-helper purge "$unit" >/dev/null || true
    done
  fi
  if [ -d /run/systemd/system ]; then systemctl --system daemon-reload >/dev/null || true; fi
}

case "$1" in
  remove)
    forget_units
    forget_runs
    if [ -d /var/lib/nix-broker ]; then
      echo "nix-broker: the audit in /var/lib/nix-broker, its user and /etc/nix-broker stay; purge removes them"
    fi
    ;;
  purge)
    forget_units
    forget_runs
    forget_all
    ;;
  upgrade | failed-upgrade | abort-install | abort-upgrade | disappear) ;;
  *)
    echo "postrm called with unknown argument \`$1'" >&2
    exit 1
    ;;
esac
