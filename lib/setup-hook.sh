# Makes Nix usable inside of a build, and builds with it. Sourced by stdenv; needs bash and coreutils.

# A home, a cache and a NIX_PATH, from the attributes that hand-on.nix makes.
nixBrokerSetUp() {
  nixBrokerState=$NIX_BUILD_TOP/.nix-broker
  mkdir -p "$nixBrokerState/home/.cache"
  # From 2.26 on Nix ignores a home that is not its user's: this one is.
  export HOME=$nixBrokerState/home
  export XDG_CACHE_HOME=$HOME/.cache
  # Up to 2.8 a builder's output is a terminal, and `nix-store --query` would start a pager and wait.
  export PAGER=cat NIX_PAGER=cat
  # Without build users the client would find a writable state folder, and use a store of its own.
  export NIX_REMOTE=daemon

  local path=${nixBrokerPath:-}
  if [ -n "${nixBrokerOverlays:-}" ]; then
    printf '%s\n' "$nixBrokerOverlays" >"$nixBrokerState/overlays.nix"
    path=nixpkgs-overlays=$nixBrokerState/overlays.nix${path:+:$path}
  fi
  export NIX_PATH=$path
  if [ -n "${nixBrokerConfig:-}" ]; then
    printf '%s\n' "$nixBrokerConfig" >"$nixBrokerState/config.nix"
    export NIXPKGS_CONFIG=$nixBrokerState/config.nix
  fi
  if [ -n "${nixBrokerSettings:-}" ]; then
    export NIX_CONFIG=$nixBrokerSettings
  fi
}

# The names of the outputs. With __structuredAttrs they are the keys of an array, and lists are arrays.
nixBrokerOutputs() {
  case $(declare -p outputs 2>/dev/null) in
    "declare -A"*) echo "${!outputs[@]}" ;;
    *) echo "${outputs:-out}" ;;
  esac
}

# Puts the arguments of nix-build and nix-instantiate into nixBrokerCommandLine: the file, its arguments, and one
# attribute for each output of the outer derivation.
nixBrokerSelect() {
  nixBrokerCommandLine=("${nixBrokerFile:-.}")
  local name names output
  if [ -n "${nixBrokerArguments:-}" ]; then
    printf '%s\n' "$nixBrokerArguments" >"$nixBrokerState/arguments.nix"
    for name in ${nixBrokerArgumentNames[@]}; do
      nixBrokerCommandLine+=(--arg "$name" "(import $nixBrokerState/arguments.nix).$name")
    done
  fi
  local attribute=${nixBrokerAttribute:-}
  names=$(nixBrokerOutputs)
  if [ "$names" = out ]; then
    if [ -n "$attribute" ]; then nixBrokerCommandLine+=(-A "$attribute"); fi
  else
    for output in $names; do nixBrokerCommandLine+=(-A "${attribute:+$attribute.}$output"); done
  fi
}

# Builds; the results go into the array nixBrokerResults, in the order of the outputs.
nixBrokerBuild() {
  nixBrokerSelect
  local built
  built=$(nix-build --no-out-link "${nixBrokerCommandLine[@]}" "$@")
  mapfile -t nixBrokerResults <<<"$built"
}

# Makes each output of what was built.
nixBrokerInstall() {
  local output position=0 result
  for output in $(nixBrokerOutputs); do
    result=${nixBrokerResults[position]}
    position=$((position + 1))
    case ${nixBrokerInstallAs:-link} in
      link) ln -s "$result" "${!output}" ;;
      tree)
        cp -rs "$result" "${!output}"
        find "${!output}" -type d -exec chmod u+w {} +
        ;;
      copy)
        cp -r "$result" "${!output}"
        chmod -R u+w "${!output}"
        ;;
    esac
  done
}

# Instantiates; the outer output says what is to be built next (docs/lib.md, "Continuations").
nixBrokerReturn() {
  nixBrokerSelect
  mkdir -p "$out/nix-support"
  nix-instantiate "${nixBrokerCommandLine[@]}" "$@" >"$out/nix-support/continuation"
}

nixBrokerSetUp
