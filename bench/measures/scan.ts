import type { Measure, Row } from "../measure.ts";
import { measureScanner } from "../scanner.ts";

/** The inputs that have a target. The others of `bench/scanner.ts` are reported. */
const targets: Readonly<Record<string, number>> = { "English and code": 2.5, "random base 32": 0.1 };

export const scan: Measure = {
  name: "scan",
  about: "the reference scanner, on easy bytes and on hard ones",
  run: async () =>
    measureScanner().map(({ input, wanted, gigabytesPerSecond }): Row => {
      const value = targets[input];
      return {
        measure: `scanning ${input}, ${wanted} wanted`,
        unit: "GB/s",
        ours: gigabytesPerSecond,
        others: {},
        ...(value !== undefined && { target: { bound: "at least", value, against: "itself" } }),
      };
    }),
};
