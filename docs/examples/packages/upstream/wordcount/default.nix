# One derivation a file, found by looking at the source: to build this with import-from-derivation, the source would have
# to be fetched before anything else could be evaluated.
{
  pkgs ? import <nixpkgs> { },
  # Says hello in the summary.
  greeter,
  # Counts only words that are at least so long.
  shortest ? 1,
}:
let
  texts = builtins.attrNames (builtins.readDir ./texts);
  count =
    name:
    pkgs.stdenv.mkDerivation {
      name = "count-${name}";
      text = ./texts + "/${name}";
      inherit shortest;
      buildCommand = ''
        tr -cs '[:alnum:]' '\n' < $text | awk -v n=$shortest 'length >= n && NF' | wc -l > $out
      '';
    };
in
pkgs.stdenv.mkDerivation {
  name = "wordcount";
  outputs = [
    "out"
    "doc"
  ];
  counts = map count texts;
  inherit texts greeter;
  buildCommand = ''
    mkdir -p $out/share $doc
    $greeter/bin/greeter reader > $out/share/summary
    set -- $counts
    for text in $texts; do
      echo "$text: $(cat $1)" >> $out/share/summary
      shift
    done
    echo "counted by $out" > $doc/README
  '';
}
