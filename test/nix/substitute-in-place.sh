# `FILE… (--replace-fail | --replace-quiet) OLD NEW …`: what package.nix uses of nixpkgs' substituteInPlace.
files=()
while [ "${1#--}" = "$1" ]; do
  files+=("$1")
  shift
done
while [ $# -gt 0 ]; do
  for file in "${files[@]}"; do
    text=$(cat "$file" && printf x)
    changed=${text//"$2"/"$3"}
    if [ "$1 $text" = "--replace-fail $changed" ]; then
      echo "$file does not have $2" >&2
      exit 1
    fi
    printf %s "${changed%x}" >"$file"
  done
  shift 3
done
