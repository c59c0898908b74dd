import { describe, expect, test } from "vitest";
import { listsName, meetNames, nameItemProblem, namesWithin } from "../../src/policy/name-list.ts";

describe("lists of names", () => {
  test("a * at the end stands for any rest, and for none elsewhere", () => {
    expect(listsName(["gccarch-*"], "gccarch-x86-64-v3")).toBe(true);
    expect(listsName(["gccarch-*"], "xgccarch-")).toBe(false);
    expect(listsName(["gccarch-"], "gccarch-x")).toBe(false);
    expect(listsName(["*"], "kvm")).toBe(true);
    // A client's own name with a * in it is just a name.
    expect(listsName(["kvm"], "k*")).toBe(false);
    expect(nameItemProblem("k*m")).toContain("not its last character");
    expect(nameItemProblem("**")).toContain("not its last character");
    expect(nameItemProblem("k*")).toBeUndefined();
  });

  test("what two lists stand for together is the narrower of both", () => {
    expect(meetNames(["NIX_*", "a"], ["NIX_MIRRORS_*", "NIX_X", "b"])).toEqual(["NIX_MIRRORS_*", "NIX_X"]);
    expect(meetNames(["*"], ["kvm"])).toEqual(["kvm"]);
    expect(meetNames(["kvm"], ["big-parallel"])).toEqual([]);
    expect(namesWithin(["NIX_MIRRORS_*"], ["NIX_*"])).toBe(true);
    expect(namesWithin(["NIX_*"], ["NIX_MIRRORS_*"])).toBe(false);
  });
});
