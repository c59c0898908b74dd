# As much of nixpkgs' lib as the NixOS module uses, for machines without nixpkgs. The module system here follows
# lib/modules.nix in what matters: properties are pushed down into sets before conditions are looked at, the definitions
# of highest priority are merged (lists joined, sets merged, other values must be equal), and free-form settings take
# what no option declares. Not here: most types, `apply`, `imports` with arguments, `mkOrder`.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    elem
    filter
    foldl'
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isString
    listToAttrs
    map
    mapAttrs
    ;
  typeOf = value: value._type or "";
  isPlainSet = value: isAttrs value && typeOf value == "" && value.type or "" != "derivation";
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkMerge = contents: {
    _type = "merge";
    inherit contents;
  };
  mkOption = option: option // { _type = "option"; };

  # Sets without properties around them; conditions are not looked at.
  pushDown =
    value:
    if typeOf value == "merge" then
      concatMap pushDown value.contents
    else if typeOf value == "if" then
      map (mapAttrs (_: mkIf value.condition)) (pushDown value.content)
    else if typeOf value == "override" then
      map (mapAttrs (_: mkOverride value.priority)) (pushDown value.content)
    else
      [ value ];

  # What is defined: a list of { priority, value }.
  discharge =
    priority: value:
    if typeOf value == "merge" then
      concatMap (discharge priority) value.contents
    else if typeOf value == "if" then
      (if value.condition then discharge priority value.content else [ ])
    else if typeOf value == "override" then
      discharge value.priority value.content
    else
      [ { inherit priority value; } ];

  unique = foldl' (names: name: if elem name names then names else names ++ [ name ]) [ ];

  mergeValues =
    path: definitions:
    let
      best = foldl' (least: one: if one.priority < least then one.priority else least) 9999 definitions;
      values = map (one: one.value) (filter (one: one.priority == best) definitions);
    in
    if definitions == [ ] then
      throw "The option `${path}' was accessed but has no value defined."
    else if all isPlainSet values then
      mergeFree path values
    else if all isList values then
      concatLists values
    else if all (value: value == head values) values then
      head values
    else
      throw "The option `${path}' has conflicting definition values.";

  mergeFree =
    path: sets:
    listToAttrs (
      concatMap (
        name:
        let
          definitions = concatMap (discharge 100) (map (set: set.${name}) (filter (set: set ? ${name}) sets));
        in
        if definitions == [ ] then
          [ ]
        else
          [
            {
              inherit name;
              value = mergeValues "${path}.${name}" definitions;
            }
          ]
      ) (unique (concatMap attrNames sets))
    );

  mergeOption =
    path: option: values:
    let
      defaults =
        if option ? default then
          [
            {
              priority = 1500;
              value = option.default;
            }
          ]
        else
          [ ];
      definitions = concatMap (discharge 100) values ++ defaults;
      merged = mergeValues path definitions;
    in
    if option.type ? options then
      mergeTree path option.type.options true (map (one: one.value) definitions)
    else if option.type.check merged then
      merged
    else
      throw "A definition for option `${path}' is not of type `${option.type.name}'.";

  mergeTree =
    path: declared: free: values:
    let
      sets = concatMap pushDown values;
      at = name: map (set: set.${name}) (filter (set: set ? ${name}) sets);
      child = name: if path == "" then name else "${path}.${name}";
      declaredPart = mapAttrs (
        name: declaration:
        if typeOf declaration == "option" then
          mergeOption (child name) declaration (at name)
        else
          mergeTree (child name) declaration free (at name)
      ) declared;
      others = filter (name: !(declared ? ${name})) (unique (concatMap attrNames sets));
    in
    if others != [ ] && !free then
      throw "The option `${child (head others)}' does not exist."
    else
      mergeFree path (map (set: removeAttrs set (attrNames declared)) sets) // declaredPart;

  # Options are sets, but for those at their leaves.
  joinOptions =
    a: b:
    a
    // mapAttrs (
      name: value:
      if a ? ${name} && typeOf value != "option" then joinOptions a.${name} value else value
    ) b;

  definitionsOf =
    path: option: values:
    option
    // {
      definitionsWithLocations = map (one: {
        file = "a module";
        inherit (one) value;
      }) (concatMap (discharge 100) values);
    };

  optionsTree =
    declared: values:
    let
      sets = concatMap pushDown values;
      at = name: map (set: set.${name}) (filter (set: set ? ${name}) sets);
    in
    mapAttrs (
      name: declaration:
      if typeOf declaration == "option" then
        definitionsOf name declaration (at name)
      else
        optionsTree declaration (at name)
    ) declared;

  type = name: check: { inherit name check; };
in
rec {
  inherit
    any
    concatMap
    elem
    isList
    isString
    mkIf
    mkMerge
    mkOption
    mkOverride
    ;
  modules.mergeDefinitions =
    loc: _type: definitions:
    let
      discharged = concatMap ({ value, ... }: discharge 100 value) definitions;
    in
    {
      isDefined = discharged != [ ];
      mergedValue = mergeValues (builtins.concatStringsSep "." loc) discharged;
    };
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasInfix = infix: text: builtins.length (builtins.split infix text) > 1;
  filterAttrs =
    keep: attrs: removeAttrs attrs (filter (name: !(keep name attrs.${name})) (attrNames attrs));
  mkForce = mkOverride 50;
  mkDefault = mkOverride 1000;
  mkEnableOption =
    what:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  literalExpression = text: { inherit text; };
  optional = condition: value: if condition then [ value ] else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  types = {
    bool = type "boolean" isBool;
    str = type "string" isString;
    path = type "path" (value: isString value || builtins.isPath value);
    package = type "package" (value: value.type or "" == "derivation");
    port = type "port" (value: isInt value && value >= 0 && value < 65536);
    ints.unsigned = type "unsigned integer" (value: isInt value && value >= 0);
    ints.between =
      least: most:
      type "integer between ${toString least} and ${toString most}" (
        value: isInt value && value >= least && value <= most
      );
    ints.positive = type "positive integer" (value: isInt value && value > 0);
    enum = values: type "one of ${builtins.toJSON values}" (value: elem value values);
    nullOr = inner: type "null or ${inner.name}" (value: value == null || inner.check value);
    either = a: b: type "${a.name} or ${b.name}" (value: a.check value || b.check value);
    listOf = inner: type "list of ${inner.name}" (value: isList value && all inner.check value);
    attrsOf = inner: type "set of ${inner.name}" isAttrs;
    anything = type "anything" (_: true);
    submodule = module: module // type "submodule" isAttrs;
  };
  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      arguments = specialArgs // {
        inherit config options;
        lib = import ./stand-in-lib.nix;
      };
      load =
        module:
        let
          value = if isFunction module || isAttrs module then module else import module;
          set = if isFunction value then value arguments else value;
        in
        if set ? config || set ? options then
          set
        else
          { config = set; };
      loaded = map load modules;
      declared = foldl' joinOptions { } (map (module: module.options or { }) loaded);
      values = map (module: module.config or { }) loaded;
      config = mergeTree "" declared false values;
      options = optionsTree declared values;
    in
    {
      inherit config options;
    };
}
