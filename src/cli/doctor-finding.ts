/** What a check of `nix-broker doctor` found. */
export interface Finding {
  /** `warning` is also used for what the current user cannot see. */
  readonly state: "ok" | "warning" | "problem";
  /** What was checked, in a word or two. */
  readonly topic: string;
  /** One line. */
  readonly text: string;
  /** What to do; null if there is nothing to do. */
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
