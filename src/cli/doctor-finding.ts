/** What a check of `nix-broker doctor` found. */
export interface Finding {
  /** `warning` is also what cannot be seen by the user who asks. */
  readonly state: "ok" | "warning" | "problem";
  /** What was looked at, in a word or two. */
  readonly topic: string;
  /** One line. */
  readonly text: string;
  /** What to do; null where nothing is to be done. */
  readonly advice: string | null;
}

export function ok(topic: string, text: string): Finding {
  return { state: "ok", topic, text, advice: null };
}

export function warning(topic: string, text: string, advice: string): Finding {
  return {
    state: "warning",
    topic,
    text,
    advice,
  };
}

export function problem(topic: string, text: string, advice: string): Finding {
  return {
    state: "problem",
    topic,
    text,
    advice,
  };
}

/** Something that this user may not look at. */
export function unseen(topic: string, what: string): Finding {
  return warning(topic, `${what} cannot be seen by this user`, "run nix-broker doctor as root");
}
