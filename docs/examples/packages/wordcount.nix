{
  buildFromUpstream,
  greeter,
  lib,
}:
buildFromUpstream {
  pname = "wordcount";
  version = "0.3";
  src = ./upstream/wordcount;
  outputs = [
    "out"
    "doc"
  ];
  # Packages are built before and handed on as results; numbers, strings, lists and sets as they are.
  arguments = {
    inherit greeter;
    shortest = 1;
  };
  meta = {
    description = "Counts the words of texts, one derivation a text";
    license = lib.licenses.mit;
  };
}
