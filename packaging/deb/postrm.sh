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

# Asks by debconf. Who cannot be asked, or has no debconf, has not said yes.
is_audit_to_go() {
  [ -d /var/lib/nix-broker/audit ] || return 0
  [ -e /usr/share/debconf/confmodule ] || return 1
  # Its question is needed now alone, when the package's files are gone.
  question=$(mktemp)
  cat >"$question" <<'END'
Template: nix-broker/remove-audit
Type: boolean
Default: false
Description: Remove nix-broker's audit as well?
 In /var/lib/nix-broker is a record of every request that sandboxes made of
 the Nix daemon. Once removed, nobody can get it back.
END
  db_x_loadtemplatefile "$question" nix-broker
  rm "$question"
  db_input high nix-broker/remove-audit || true
  db_go || true
  db_get nix-broker/remove-audit
  answer=$RET
  db_purge
  [ "$answer" = true ]
}

# First: it runs this script anew.
if [ "$1" = purge ] && [ -e /usr/share/debconf/confmodule ]; then
  . /usr/share/debconf/confmodule
fi

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
    forget_configuration
    if is_audit_to_go; then forget_audit; else say_audit_stays; fi
    ;;
  upgrade | failed-upgrade | abort-install | abort-upgrade | disappear) ;;
  *)
    echo "postrm called with unknown argument \`$1'" >&2
    exit 1
    ;;
esac
