# Without nixpkgs: a bash and some folders of programs that the sandbox shows.
let
  nixBroker = import ../../lib {
    path = [
      "/usr/bin"
      "/bin"
    ];
  };
in
nixBroker.recursiveBuild {
  name = "plain";
  src = ./plain;
  arguments.who = "reader";
  installAs = "tree";
  postInstall = ''
    echo "added by the outer build" > $out/note
  '';
}
