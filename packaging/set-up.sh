#!/bin/sh
# What installing, upgrading and removing nix-broker changes beside its own files. Run as root by the package's maintainer
# scripts and by install.sh; running it again changes nothing.
#
#   set-up configuration   config.toml, if there is none, and root.conf
#   set-up account         the service's user, the group that may reach nix-daemon, and the folders
#   set-up connect         names the hooks to Nix: a file of our own, and one line in nix.conf that includes it
#   set-up restart         lets the new version run, once no build uses the old one
#   set-up report          prints what `nix-broker doctor` says
#   set-up disconnect      takes the hooks from Nix again
set -e
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/nix/var/nix/profiles/default/bin
# Nix is told of it, so it begins with a slash.
here=$(CDPATH= cd "$(dirname "$0")" && pwd)

config=/etc/nix-broker/config.toml
root_config=/etc/nix-broker/root.conf
nix_conf=/etc/nix/nix.conf
fragment=/etc/nix/nix-broker.conf
waiter=nix-broker-upgrade.service

say() {
  echo "nix-broker: $*"
}

has_systemd() {
  [ -d /run/systemd/system ]
}

# KEY: its value in root.conf.
root_setting() {
  [ ! -e "$root_config" ] || sed -n "s/^$1=//p" "$root_config"
}

# NAME: its value for nix-daemon. The first command is the newer one; 2.3 knows only the second.
nix_setting() {
  {
    HOME=/nonexistent NIX_CONFIG='experimental-features = nix-command' nix config show ||
      HOME=/nonexistent NIX_CONFIG='experimental-features = nix-command' nix show-config
  } 2>/dev/null | sed -n "s/^$1 = *//p"
}

# SETTING: the hook in nix.conf that is not ours, if there is one.
foreign_hook() {
  hook=$(nix_setting "$1")
  case $hook in
    '' | "$here"/*) ;;
    # One that was installed elsewhere is ours, too.
    *) grep -qs nix-broker "$hook" || echo "$hook" ;;
  esac
}

configuration() {
  mkdir -p /etc/nix-broker
  if [ ! -e "$config" ]; then
    {
      echo '# docs/configuration.md lists every key; `nix-broker check-config` checks this file.'
      echo '[hooks]'
      echo 'profile = "build"'
      for which in pre post; do
        hook=$(foreign_hook "$which-build-hook")
        if [ -n "$hook" ]; then echo "next_${which}_build_hook = \"$hook\""; fi
      done
    } >"$config.new"
    mv "$config.new" "$config"
  fi
  if "$here/nix-broker" check-config --root-subset >"$root_config.new"; then
    mv "$root_config.new" "$root_config"
  else
    rm "$root_config.new"
    say "$config cannot be used; the hooks and the linker go on with what it said before"
  fi
}

account() {
  systemd-sysusers nix-broker.conf
  socket=$(root_setting upstream_socket)
  folder=$(dirname "${socket:-/nix/var/nix/daemon-socket/socket}")
  # Not runuser, which fails where PAM is not set up.
  if [ -d "$folder" ] && ! setpriv --reuid=nix-broker --regid=nix-broker --init-groups test -x "$folder"; then
    group=$(stat -c %G "$folder")
    case $group in
      root | nixbld | UNKNOWN) say "the user nix-broker cannot enter $folder, so the service cannot reach nix-daemon" ;;
      *)
        usermod -a -G "$group" nix-broker
        say "the user nix-broker is in the group $group now, which may enter $folder"
        # If it runs, it could not reach nix-daemon until now, and does not learn of the group by itself.
        if has_systemd; then systemctl try-restart nix-broker.service; fi
        ;;
    esac
  fi
  systemd-tmpfiles --create nix-broker.conf
  # nix-daemon makes the store when its first client comes; the linker's unit needs the folder.
  if [ ! -d /nix/store ]; then NIX_REMOTE=daemon nix-store --gc --print-roots >/dev/null 2>&1 || true; fi
}

# WHICH (pre or post): the line that names our hook, unless that would keep Nix from running somebody else's.
hook_line() {
  foreign=$(foreign_hook "$1-build-hook")
  if [ -n "$foreign" ] && [ "$foreign" != "$(root_setting "next_$1_build_hook")" ]; then
    say "Nix has a $1-build-hook already, $foreign, and runs one only: it is left alone. To have both run, set" \
      "next_$1_build_hook = \"$foreign\" below [hooks] in $config, then run $here/set-up configuration and" \
      "$here/set-up connect" >&2
  else
    echo "$1-build-hook = $here/$1-build-hook"
  fi
}

# SETTING: the line that adds us to a list. 2.3 has no extra-.
added_line() {
  case $(nix --version | sed 's/.* //') in
    2.[0-3] | 2.[0-3][!0-9]*) echo "$1 = $(nix_setting "$1" | sed 's/ *nix-broker//g') nix-broker" ;;
    *) echo "extra-$1 = nix-broker" ;;
  esac
}

fragment_text() {
  echo "# Made by nix-broker, and made anew by each upgrade. Lines of your own belong into nix.conf."
  hook_line pre
  hook_line post
  added_line system-features
  case " $(nix_setting allowed-users) " in
    *' * '* | '  ') ;;
    *) added_line allowed-users ;;
  esac
}

include='!include nix-broker.conf'

is_included() {
  [ -e "$nix_conf" ] && grep -qxF "$include" "$nix_conf"
}

ends_in_a_line() {
  [ ! -e "$1" ] || [ -z "$(tail -c 1 "$1")" ]
}

# Replaces nix.conf by the standard input, with owner and mode as they are.
replace_nix_conf() {
  file=$(readlink -f "$nix_conf")
  if [ -e "$file" ]; then cp -p "$file" "$file.nix-broker-new"; fi
  cat >"$file.nix-broker-new"
  mv "$file.nix-broker-new" "$file"
}

restart_daemon() {
  if has_systemd && systemctl is-active --quiet nix-daemon.service; then systemctl restart nix-daemon.service; fi
}

connect() {
  if ! command -v nix >/dev/null || [ ! -d /etc/nix ]; then
    say "there is no multi-user Nix here yet. Install one, then run $here/set-up account and $here/set-up connect"
    return
  fi
  case $(readlink -f "$nix_conf") in
    /nix/store/*)
      say "$nix_conf is made by something else (NixOS: docs/nixos.md), so Nix does not know of nix-broker"
      return
      ;;
  esac
  fragment_text >"$fragment.new"
  if is_included && [ -e "$fragment" ] && [ "$(cat "$fragment.new")" = "$(cat "$fragment")" ]; then
    rm "$fragment.new"
    return
  fi
  mv "$fragment.new" "$fragment"
  if ! is_included; then
    {
      [ ! -e "$nix_conf" ] || cat "$nix_conf"
      # Debian's file has no end of line at its end. Ours has none then, either, so that it can be as it was.
      if ends_in_a_line "$nix_conf"; then echo "$include"; else printf '\n%s' "$include"; fi
    } >"$nix_conf.text"
    replace_nix_conf <"$nix_conf.text"
    rm "$nix_conf.text"
  fi
  # It reads its settings when it starts. Builds under way go on: they have processes of their own.
  restart_daemon
}

# Processes of nix-daemon that serve others than us: each has its client's number as its argument.
count_workers() {
  count=0
  for process in /proc/[0-9]*; do
    { read -r name <"$process/comm"; } 2>/dev/null || continue
    [ "$name" = nix-daemon ] || continue
    # Anybody can have a process of that name, with any command line.
    client=$({ tr '\0' '\n' <"$process/cmdline" | sed -n 2p; } 2>/dev/null)
    case $client in
      '' | *[!0-9]*) continue ;;
    esac
    if ! grep -qs nix-broker "/proc/$client/cgroup"; then count=$((count + 1)); fi
  done
  echo "$count"
}

disconnect() {
  if is_included; then
    if ends_in_a_line "$nix_conf"; then
      grep -vxF "$include" "$nix_conf" || true
    else
      printf %s "$(grep -vxF "$include" "$nix_conf")"
    fi >"$nix_conf.text"
    # It was made for that line.
    if [ -s "$nix_conf.text" ]; then replace_nix_conf <"$nix_conf.text"; else rm "$nix_conf"; fi
    rm "$nix_conf.text"
    rm -f "$fragment"
    restart_daemon
    workers=$(count_workers)
    if [ "$workers" != 0 ]; then
      say "clients that nix-daemon had before ($workers) go on with the hooks: the builds that they start once these are gone" \
        "fail, until they connect again"
    fi
  fi
  rm -f "$fragment"
  if has_systemd; then systemctl stop "$waiter" 2>/dev/null || true; fi
}

count_sandboxes() {
  runtime=$(root_setting runtime_dir)
  count=0
  for folder in "${runtime:-/run/nix-broker}"/sandboxes/*/; do
    if [ -d "$folder" ] && [ ! -e "$folder/ended" ]; then count=$((count + 1)); fi
  done
  echo "$count"
}

restart_now() {
  systemctl try-restart nix-broker-linker.service nix-broker.service
}

# The running service has loaded what it needs (the page's thread, which it starts later, is a program of its own), so it can go
# on for as long as builds talk to it.
restart() {
  sandboxes=$(count_sandboxes)
  if [ "$sandboxes" = 0 ]; then
    restart_now
    return
  fi
  say "the old version goes on serving $sandboxes running builds, and is restarted as soon as no build uses it;" \
    "to restart it at once: systemctl restart nix-broker-linker nix-broker"
  systemctl is-active --quiet "$waiter" ||
    systemd-run --quiet --collect --unit="$waiter" --description="Waits to restart nix-broker" "$here/set-up" restart-when-idle
}

restart_when_idle() {
  while [ "$(count_sandboxes)" != 0 ]; do sleep 1; done
  restart_now
}

# Never a reason to fail: an installation may be finished by hand.
report() {
  say "what nix-broker doctor says:"
  "$here/nix-broker" doctor || true
}

case $1 in
  configuration | account | connect | restart | report | disconnect) "$1" ;;
  restart-when-idle) restart_when_idle ;;
  *)
    echo "usage: set-up configuration|account|connect|restart|report|disconnect" >&2
    exit 2
    ;;
esac
