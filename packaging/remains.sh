# What runs and builds leave behind, beside the files that were installed. Part of the package's postrm and of install.sh.

# Everything but the configuration and the audit, whose user stays, too.
forget_runs() {
  rm -rf /run/nix-broker /run/nix-broker-fetch.sock /nix/var/nix/gcroots/nix-broker /nix/var/nix/nix-broker-released
}

forget_configuration() {
  rm -rf /etc/nix-broker
}

# The audit, and the user that it belongs to.
forget_audit() {
  rm -rf /var/lib/nix-broker
  if getent passwd nix-broker >/dev/null; then userdel nix-broker; fi
  if getent group nix-broker >/dev/null; then groupdel nix-broker; fi
}

say_audit_stays() {
  echo "nix-broker: the audit in /var/lib/nix-broker stays, and its user; to remove them: rm -r /var/lib/nix-broker; userdel nix-broker"
}
