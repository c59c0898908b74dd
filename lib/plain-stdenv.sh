# The builder of plain-stdenv.nix. Phases and hooks are functions of a setup hook, or variables with a script.
set -eu

runHook() {
  if [ "$(type -t "$1")" = function ]; then "$1"; else eval "${!1:-}"; fi
}

unpackPhase=${unpackPhase:-'
  if [ -d "$src" ]; then cp -r "$src" source; else mkdir source; tar -xf "$src" -C source --strip-components=1; fi
  chmod -R u+w source
'}
patchPhase=${patchPhase:-'for patch in ${patches:-}; do patch -p1 <"$patch"; done'}

for input in ${nativeBuildInputs:-}; do
  if [ -d "$input/bin" ]; then PATH=$input/bin:$PATH; fi
done
export PATH
for input in ${nativeBuildInputs:-}; do
  if [ -f "$input/nix-support/setup-hook" ]; then . "$input/nix-support/setup-hook"; fi
done

if [ -n "${buildCommand:-}" ]; then
  eval "$buildCommand"
else
  if [ -n "${src:-}" ] && [ -z "${dontUnpack:-}" ]; then
    runHook unpackPhase
    cd "${sourceRoot:-source}"
  fi
  runHook prePatch
  runHook patchPhase
  runHook postPatch
  runHook buildPhase
  runHook installPhase
fi
# Nix ends a builder that closes its output: the last command must not be one that bash would exec.
:
