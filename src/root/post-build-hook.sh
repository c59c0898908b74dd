#!/bin/sh
# Nix's post-build-hook. Builds without a sandbox folder pay for this shell alone, or none where hook-prefilter.c was compiled,
# which runs this script for the others; they go to the real program. Ours never fails, even if its Node is missing or killed
# (the linker then registers the references); the next one may.
next=
config=${NIX_BROKER_ROOT_CONFIG:-/etc/nix-broker/root.conf}
runtime=/run/nix-broker
# -O: a file of somebody else's is not believed.
if [ -O "$config" ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      runtime_dir=*) runtime=${line#*=} ;;
      next_post_build_hook=*) next=${line#*=} ;;
    esac
  done <"$config"
fi

if [ -e "$runtime/derivations/${DRV_PATH##*/}" ]; then
  "${0%/*}/nix-broker-root" post-build-hook ||
    echo "nix-broker: the post-build hook ended with $?; the linker will do its work" >&2
fi
[ -z "$next" ] || exec "$next"
exit 0
