{ buildFromUpstream, lib }:
buildFromUpstream {
  pname = "greeter";
  version = "1.2";
  # Usually fetchFromGitHub, fetchurl and the like.
  src = ./upstream/greeter;
  # The source is unpacked and patched before upstream's expression is evaluated.
  postPatch = ''
    substitute() { sed "s/$1/$2/" greeter.sh > new && mv new greeter.sh; }
    substitute morning day
  '';
  meta = {
    description = "Greets whoever it is told to";
    license = lib.licenses.mit;
    mainProgram = "greeter";
  };
  passthru.example = "greeter reader";
}
