final: prev: {
  hello = prev.hello.overrideAttrs (old: {
    greeting = "${old.greeting}!!";
  });
}
