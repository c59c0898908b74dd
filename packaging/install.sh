#!/bin/sh
# Installs, upgrades or removes nix-broker below /usr/local, on a machine with systemd and a multi-user Nix:
#
#   install.sh             installs it, or replaces an installed version while builds run
#   install.sh --remove    takes the hooks from Nix and removes it; configuration, audit and user stay
#   install.sh --purge     removes these as well; asks before it removes the audit
set -e
umask 022
# With it, cd prints where it goes.
unset CDPATH
version=@VERSION@
machine=@MACHINE@
prefix=/usr/local
programs=$prefix/lib/nix-broker
# What was installed: first the files, a path a line, then the folders that were made for them, each with a slash at its end.
list=$programs/installed
units='nix-broker-fetch.socket nix-broker-linker.service nix-broker.service'

#INCLUDE remains.sh

say() {
  echo "nix-broker: $*"
}

fail() {
  echo "nix-broker: $*" >&2
  exit 1
}

check_machine() {
  [ "$(id -u)" = 0 ] || fail "this has to be run as root"
  [ -d /run/systemd/system ] || fail "systemd does not run here, and nix-broker is a service of systemd"
}

check_package() {
  [ "$(uname -m)" = "$machine" ] || fail "this is for $machine, but this machine is $(uname -m)"
  [ ! -e /etc/NIXOS ] || fail "on NixOS the module installs it: docs/nixos.md"
  [ ! -e /usr/lib/nix-broker/set-up ] || fail "a distribution's package of nix-broker is installed: upgrade or remove that one"
}

# Prints the folders that are missing on the way to a folder, the innermost first.
missing_folders() {
  folder=$1
  while [ -n "$folder" ] && [ ! -d "$folder" ]; do
    echo "$folder/"
    folder=${folder%/*}
  done
}

# Copies each file beside its place and renames it: whoever runs the old one goes on with it, and there is always one.
copy_files() {
  files=$(dirname "$0")/files
  [ -d "$files" ] || fail "$files is missing: run this where the archive was unpacked"
  # A folder: beside a file in /tmp, others could put what we then write to.
  work=$(mktemp -d)
  new=$work/files
  (cd "$files" && find . ! -type d | sed 's/^\.//' | sort) >"$new"
  (cd "$files" && find . -type d | sed 's/^\.//' | sort -r) | while read -r folder; do missing_folders "$folder"; done | sort -ru >"$work/folders"
  while read -r path; do
    mkdir -p "${path%/*}"
    cp -P "$files$path" "$path.nix-broker-new"
    # tar gives them to whoever unpacks them, and to nobody else if that is their umask.
    chown -h root:root "$path.nix-broker-new"
    [ -L "$path.nix-broker-new" ] || chmod u=rwX,go=rX "$path.nix-broker-new"
    mv -fT "$path.nix-broker-new" "$path"
  done <"$new"
  if [ -e "$list" ]; then
    grep -v '/$' "$list" | grep -vxFf "$new" | while read -r path; do rm -f "$path"; done
    grep '/$' "$list" >>"$work/folders" || true
  fi
  { cat "$new" && sort -ru "$work/folders"; } >"$list.new"
  mv "$list.new" "$list"
  rm -r "$work"
}

start() {
  systemctl daemon-reload
  if systemctl is-active --quiet nix-broker.service; then "$programs/set-up" restart; fi
  # Without Nix, the linker has failed too often to be started again.
  # shellcheck disable=SC2086 # They are several.
  systemctl enable --quiet $units
  # shellcheck disable=SC2086
  systemctl reset-failed $units 2>/dev/null || true
  # shellcheck disable=SC2086
  systemctl start $units || true
}

install() {
  check_package
  copy_files
  "$programs/set-up" configuration
  "$programs/set-up" account
  start
  "$programs/set-up" connect
  "$programs/set-up" report
  say "version $version is installed; to remove it: $programs/install.sh --remove"
}

# keeps: whether configuration, audit and user stay.
remove() {
  [ -e "$list" ] || fail "it is not installed in $prefix, or not by this script"
  # Before the programs go that they name: with a hook that is missing, every build fails.
  "$programs/set-up" disconnect
  # shellcheck disable=SC2086 # They are several.
  systemctl disable --quiet --now nix-broker.socket $units || true
  forget_runs
  paths=$(mktemp)
  cat "$list" >"$paths"
  rm "$list"
  while read -r path; do
    case $path in
      */) rmdir "$path" 2>/dev/null || true ;;
      *) rm -f "$path" ;;
    esac
  done <"$paths"
  rm "$paths"
  systemctl daemon-reload
  if [ "$1" = keeps ]; then say "the audit in /var/lib/nix-broker, its user and /etc/nix-broker stay; --purge removes them"; fi
}

# Who cannot be asked has not said yes.
is_audit_to_go() {
  [ -d /var/lib/nix-broker/audit ] || return 0
  printf 'Remove the audit in /var/lib/nix-broker as well? Nobody can get it back. [yes/no] '
  read -r answer || answer=
  case $answer in
    y | yes | Y | YES | Yes) ;;
    *) return 1 ;;
  esac
}

usage() {
  sed -n 's/^#   //p' "$0"
}

# First: what is asked for is not a matter of the machine.
case $1 in
  '' | --remove | --purge) [ $# -le 1 ] || { usage >&2; exit 2; } ;;
  --help | -h) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
check_machine
case $1 in
  '') install ;;
  --remove) remove keeps ;;
  --purge)
    # After --remove, too.
    [ ! -e "$list" ] || remove
    forget_runs
    forget_configuration
    if is_audit_to_go; then forget_audit; else say_audit_stays; fi
    ;;
esac
