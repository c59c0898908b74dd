# Nix values as text of the Nix language, to hand them to an evaluation inside of a build. What the text names in the store
# becomes an input of the outer build (the text has the context), and a dependency of whatever uses it inside.
let
  inherit (builtins)
    attrNames
    concatStringsSep
    filter
    hasContext
    isAttrs
    isFunction
    isList
    isPath
    isString
    map
    replaceStrings
    split
    typeOf
    ;

  quote = text: "\"${replaceStrings [ "\\" "\"" "$" ] [ "\\\\" "\\\"" "\\$" ] text}\"";

  storePathPattern = "(${builtins.storeDir}/[0-9a-z]{32}-[0-9a-zA-Z+._?=-]+)";

  storePathsIn = text: map (match: builtins.elemAt match 0) (filter isList (split storePathPattern text));

  # Contexts do not survive as text, so the inner evaluation puts them on again.
  string =
    text:
    if !hasContext text then
      quote text
    else
      "(builtins.appendContext ${quote text} { ${
        concatStringsSep " " (map (path: "${quote path} = { path = true; };") (storePathsIn text))
      } })";

  # A path in the store already is not copied once more.
  inStore =
    path:
    let
      text = toString path;
      paths = storePathsIn text;
    in
    if
      paths == [ ]
      || builtins.substring 0 (builtins.stringLength builtins.storeDir) text != builtins.storeDir
    then
      "${path}"
    else
      builtins.appendContext text {
        ${builtins.unsafeDiscardStringContext (builtins.head paths)} = {
          path = true;
        };
      };

  # What the inner evaluation gets in place of a derivation: the result, built already.
  derivationText =
    where: value:
    let
      outputs = value.outputs or [ "out" ];
      base =
        {
          type = "derivation";
          inherit outputs;
        }
        // builtins.listToAttrs (
          map (name: {
            inherit name;
            value = value.${name};
          }) (filter (name: value ? ${name}) [ "name" "pname" "version" "system" ])
        );
      one =
        output:
        base
        // {
          outputName = output;
          outPath = "${value.${output} or value}";
        };
    in
    "(let all = { ${
      concatStringsSep " " (map (output: "${quote output} = ${attributes where (one output)};") outputs)
    } }; in all // all.${quote (value.outputName or "out")})";

  attributes =
    where: value:
    "{ ${
      concatStringsSep " " (
        map (name: "${quote name} = ${printAt "${where}.${name}" value.${name}};") (attrNames value)
      )
    } }";

  printAt =
    where: value:
    if isString value then
      string value
    else if isPath value then
      string (inStore value)
    else if isList value then
      "[ ${concatStringsSep " " (map (element: "(${printAt "an element of ${where}" element})") value)} ]"
    else if isAttrs value && value.type or null == "derivation" then
      derivationText where value
    else if isAttrs value && value ? outPath then
      string "${value}"
    else if isAttrs value then
      attributes where value
    else if isFunction value then
      throw "nix-broker: ${where} is a function, and functions cannot be handed to the evaluation inside of a build: put it into a file, and give the file's path instead"
    else if typeOf value == "int" || typeOf value == "float" then
      "(${builtins.toJSON value})"
    else
      builtins.toJSON value;
in
{
  inherit inStore;
  # print "what it is, for messages" value
  print = printAt;
}
